"""`#PART` at the end of a path, which selects one part of the images there. It needs no PyTorch."""

from pathlib import Path


def split_part(path: Path) -> tuple[Path, str]:
    """The path and its `#PART`, which is empty if there is none, or if a file or folder has that very name."""
    name, _, part = path.name.rpartition("#")
    if name and not path.exists() and path.with_name(name).exists():
        return path.with_name(name), part
    return path, ""
