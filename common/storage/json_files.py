"""JSON files of this machine that hold one object each."""

import json
from pathlib import Path
from typing import Any


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a file.

    remedy: what the user can do about a damaged file; it ends the sentence of the error.

    Raises
    ------
    OSError: the file cannot be read.
    ValueError: it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON object, and cannot be read as one ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got a {type(content).__name__}: {remedy}")
    return content
