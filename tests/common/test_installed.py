"""Files that ship beside the code are found, or their absence is explained."""

from pathlib import Path

import pytest

from common.storage import installed


def test_file_of_the_checkout_is_found():
    assert installed.find_installed(Path("common") / "storage" / "installed.py").samefile(installed.__file__)


def test_missing_file_is_named_with_what_to_do():
    with pytest.raises(FileNotFoundError, match=r"no/such/file.*install fedlmg from its checkout or wheel"):
        installed.find_installed(Path("no/such/file"))
