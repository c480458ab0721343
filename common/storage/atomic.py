"""Files that survive a crash: each is written under a temporary name, synced to disk and renamed."""

import json
import os
from contextlib import suppress
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees either the old content or the new content, never a part of one.

    Raises
    ------
    OSError: the file cannot be written; the error names it, and the temporary file is removed.
    """
    _write(path, content, 0o666)


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in the same way as `write_bytes`; it never has wider rights."""
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, rights: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.unlink(missing_ok=True)  # A crash may have left it, with other rights.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, rights), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON in UTF-8, in the same way as `write_bytes`."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
