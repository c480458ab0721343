"""Where to find the files that ship with FedLMG beside its code."""

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def find_installed(name: Path) -> Path:
    """The path of a shipped file, given its path `name` from the root of the checkout or wheel.

    A Flower bundle carries only code. So the file is looked for beside this code, in the installed distribution, and in
    the checkout that an editable install points to. A folder cannot be asked for: of one that holds code and other
    files, a bundle has a part.

    Raises
    ------
    FileNotFoundError: none of these places holds the file; the message lists them.
    """
    roots = [Path(__file__).parents[2]]
    try:
        distribution = metadata.distribution("fedlmg")
        roots.append(Path(str(distribution.locate_file(""))))
        if origin := distribution.read_text("direct_url.json"):
            roots.append(_path_of(json.loads(origin)["url"]))
    except metadata.PackageNotFoundError:
        pass
    for root in roots:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"'{name}' was not found in {' or '.join(map(str, roots))}: install fedlmg from its checkout or wheel"
    )


def _path_of(url: str) -> Path:
    """The path in a file URL, where a blank is `%20` and a percent sign `%25`."""
    return Path(url2pathname(urlsplit(url).path))
