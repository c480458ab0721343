"""Text files as their owners' programs write them: UTF-8, UTF-16 with its mark, or Windows' Western code page."""

import codecs
from pathlib import Path

LOOKED_AT = 2**20
"""Bytes at a file's beginning that tell its encoding."""


def find_encoding(file: Path) -> tuple[str, str]:
    """The encoding of a text, and a doubt about it in words that follow the file's name; empty without one.

    Raises
    ------
    OSError: the file cannot be read.
    ValueError: it holds no text.
    """
    with open(file, "rb") as stream:
        content = stream.read(LOOKED_AT)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ""
    if b"\0" in content:
        raise ValueError("it holds bytes that are no text")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return "cp1252", "is not UTF-8 and is read as Windows-1252: look at its names, or save it as UTF-8"
    return "utf-8-sig", ""
