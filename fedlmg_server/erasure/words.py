"""What tells of a client in a file: its name in every spelling, and the checksums of its weights."""

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any

from common.names import safe_name

REMOVED = "a removed client"
"""Stands where a name stood."""
FEWEST_BYTES = 5
"""A shorter name is not looked for in binary files, where so few bytes come about by chance."""


class Words:
    """The words of one client; a name within a longer one, as `site` in `site-2`, is none of them."""

    def __init__(self, name: str, checksums: Iterable[str] = ()) -> None:
        self.name, self.folder = name, safe_name(name)
        spellings = {name, self.folder, escape(name), json.dumps(name)[1:-1], re.sub(r"[^\w.\- :/]", "_", name)}
        self._found = [spelling.encode() for spelling in {*spellings, *filter(None, checksums)}]
        self._text = self._pattern(self._found)
        self._binary = self._pattern([word for word in self._found if len(word) >= FEWEST_BYTES])

    @staticmethod
    def _pattern(words: list[bytes]) -> re.Pattern[bytes]:
        either = b"|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        return re.compile(rb"(?<![\w-])(?:" + either + rb")(?![\w-])" if words else rb"(?!)")

    def are_in(self, text: str | bytes) -> bool:
        return bool(self._text.search(text if isinstance(text, bytes) else text.encode(errors="replace")))

    def are_in_binary(self, content: Any) -> bool:
        """content: bytes, or a file that is mapped into memory."""
        return bool(self._binary.search(content))

    def replace_in(self, text: str) -> str:
        return self._text.sub(REMOVED.encode(), text.encode(errors="replace")).decode()

    def take_out_of(self, value: Any) -> Any:
        """A JSON value without entries whose key or value is one of these words, and without them in other texts."""
        if isinstance(value, dict):
            return {
                self.replace_in(key): self.take_out_of(each)
                for key, each in value.items()
                if not self.is_one(key) and not self.is_one(each)
            }
        if isinstance(value, list):
            return [self.take_out_of(each) for each in value if not self.is_one(each)]
        return self.replace_in(value) if isinstance(value, str) else value

    def is_one(self, value: Any) -> bool:
        """Whether a value is nothing but one of these words."""
        return isinstance(value, str) and value.encode(errors="replace") in self._found
