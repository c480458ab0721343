"""Where the files lie that ship with FedLMG beside its code."""

from importlib import metadata
from pathlib import Path


def find_installed(name: Path) -> Path:
    """A file or folder of the checkout or wheel, by its path from the root of either.

    A Flower bundle carries nothing but code, so this looks beside it, in the installed distribution, and in the
    checkout that an editable install points to.

    Raises
    ------
    FileNotFoundError: it is in none of them; the message says where it was sought and what to do.
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
        f"'{name}' is not in {' or '.join(map(str, roots))}: install fedlmg from its checkout or wheel"
    )
