"""Where to find the files that ship with FedLMG beside its code."""

from importlib import metadata
from pathlib import Path


def find_installed(name: Path) -> Path:
    """The path of a shipped file or folder, given its path `name` from the root of the checkout or wheel.

    A Flower bundle carries only code. So the file is looked for beside this code, in the installed distribution, and in
    the checkout that an editable install points to.

    Raises
    ------
    FileNotFoundError: none of these places holds the file; the message lists them.
    """
    roots = [Path(__file__).parents[2]]
    try:
        distribution = metadata.distribution("fedlmg")
        roots.append(Path(str(distribution.locate_file(""))))
        if origin := distribution.read_text("direct_url.json"):
            roots.append(Path(origin.split('"file://', 1)[-1].split('"', 1)[0]))
    except metadata.PackageNotFoundError:
        pass
    for root in roots:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(
        f"'{name}' was not found in {' or '.join(map(str, roots))}: install fedlmg from its checkout or wheel"
    )
