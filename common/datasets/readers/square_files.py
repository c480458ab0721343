"""The files of squares in a cache: how they are named, and when they are removed.

A file's name is `OWNER-CONTENT-SETTINGS-NUMBER.uint8`: checksums of whose images these are, of the image files, and of
all else that the squares depend on; and a random number. Its description beside it ends with `.json`.
"""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from time import time

from common.datasets.readers.image_files import printable_path
from common.processes import is_open

SECONDS_KEPT = 30 * 86400
"""A file of squares that was not used for so long is removed when images are next read with its cache."""
SECONDS_IN_USE = 86400
"""A file of squares that was read within this time may be read again, so it stays."""
SPARE_BYTES = 10**9
"""Of the disk, which are left free."""


def name_key(owner: str, content: str, settings: str) -> str:
    """A file's name up to its random number."""
    parts = (part.encode(errors="surrogateescape") for part in (owner, content, settings))
    return "-".join(hashlib.sha256(part).hexdigest()[:20] for part in parts)


def remove_old(cache: Path) -> None:
    """Remove what was not used for `SECONDS_KEPT`, and files without a description, whose writing was cut off."""
    for file, (_, unused) in _files(cache).items():
        if unused > (SECONDS_KEPT if file.with_suffix(".json").exists() else SECONDS_IN_USE):
            _remove(file)


def remove_former(cache: Path, key: str) -> None:
    """Remove the squares of image files that the key's owner had before, as some may have been withdrawn since. What a
    process reads stays until the next time."""
    owner, content, _ = key.split("-")
    for file in cache.glob(f"{owner}-*.uint8"):
        is_former = not file.name.startswith(f"{owner}-{content}-")
        if is_former and file.with_suffix(".json").exists() and not is_open(file):
            _remove(file)


def _files(cache: Path) -> dict[Path, tuple[int, float]]:
    """Each file of squares, with its bytes and the seconds since it was used last; the longest unused first."""
    found = {}
    for file in cache.glob("*.uint8"):
        with suppress(OSError):  # Another process may remove it.
            state = file.stat()
            found[file] = (state.st_size, time() - state.st_mtime)
    return dict(sorted(found.items(), key=lambda each: -each[1][1]))


def _remove(file: Path) -> None:
    """A file of squares and its description. A process that reads it has it open, and reads on."""
    for each in (file.with_suffix(".json"), file):
        with suppress(OSError):
            each.unlink()


def make_room(cache: Path, needed: int, most_gigabytes: float) -> str:
    """Remove the files that were not used for longest until `needed` bytes fit; a sentence if they do not."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    sizes = {file: size for file, (size, _) in _files(cache).items()}
    for file, (_, unused) in _files(cache).items():
        if sum(sizes.values()) + needed > most_gigabytes * 1e9 and unused > SECONDS_IN_USE:
            _remove(file)
            sizes.pop(file, None)
    if (total := sum(sizes.values()) + needed) > most_gigabytes * 1e9:
        return (
            f"with {_bytes(needed)} of decoded images {printable_path(cache)} would hold {_bytes(total)}, "
            f"more than the {most_gigabytes:g} GB of 'image-gigabytes': raise it"
        )
    if (free := shutil.disk_usage(cache).free) < needed + SPARE_BYTES:
        return (
            f"decoded images need {_bytes(needed)} in {printable_path(cache)}, but {_bytes(free)} are free, "
            f"of which {_bytes(SPARE_BYTES)} stay free: make room there, or choose a cache on a larger disk"
        )
    return ""


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
