"""Files that ship beside the code are found, or their absence is explained."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.datasets.embedded import registry
from common.storage import installed
from fedlmg_server.flower.bundle import write_app

PIPELINE = Path("fedlmg_server") / "diffusion" / "assets" / "digits" / "model_index.json"


def test_file_of_the_checkout_is_found():
    assert installed.find_installed(Path("common") / "storage" / "installed.py").samefile(installed.__file__)


def test_missing_file_is_named_with_what_to_do():
    with pytest.raises(FileNotFoundError, match=r"no/such/file.*install fedlmg from its checkout or wheel"):
        installed.find_installed(Path("no/such/file"))


@pytest.mark.parametrize("folder", ["plain", "my projects", "Übung", "100%25 (1)", "a#b?c"])
def test_a_bundle_finds_the_files_of_its_checkout_whatever_the_path_of_this(tmp_path: Path, folder: str):
    checkout, bundle, site = tmp_path / folder / "fedlmg", tmp_path / "bundle", tmp_path / "site"
    (checkout / PIPELINE).parent.mkdir(parents=True)
    (checkout / PIPELINE).touch()
    (bundle / "common" / "storage").mkdir(parents=True)
    for file in ("__init__.py", "storage/__init__.py", "storage/installed.py"):
        shutil.copyfile(Path(installed.__file__).parents[1] / file, bundle / "common" / file)
    (site / "fedlmg-1.dist-info").mkdir(parents=True)
    (site / "fedlmg-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fedlmg\nVersion: 1\n")
    url = {"url": checkout.as_uri(), "dir_info": {"editable": True}}
    (site / "fedlmg-1.dist-info" / "direct_url.json").write_text(json.dumps(url))
    find = f"installed.find_installed(Path({str(PIPELINE)!r}))"
    code = f"from pathlib import Path; from common.storage import installed; print({find})"

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(bundle), str(site)]), "PYTHONIOENCODING": "utf-8"},
        cwd=bundle,
        capture_output=True,
        encoding="utf-8",
    )

    assert done.stdout.strip() == str(checkout / PIPELINE), done.stderr


def test_a_bundle_reads_every_embedded_dataset(tmp_path: Path):
    app = write_app(tmp_path)
    code = f"""
from common.datasets.embedded.registry import find_dataset
for dataset in map(find_dataset, {[*registry.EMBEDDED]!r}):
    print(len(dataset.load(dataset.domains[0])["test"]))"""

    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(app)}, cwd=app, capture_output=True, text=True
    )

    counts = [int(line) for line in done.stdout.split()]
    assert len(counts) == len(registry.EMBEDDED), done.stderr
    assert min(counts) > 0
