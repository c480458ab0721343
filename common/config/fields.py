"""What all tables of settings share: how strictly a value is read, and what a field takes, in words."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from pydantic.fields import FieldInfo

from common.telling import ToldError

RULES = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", use_attribute_docstrings=True)
"""Of every table: no conversion but from a whole number to a number, no infinity, a docstring below each field."""
Table = TypeVar("Table")


class ConfigError(ToldError):
    """A setting that cannot be used; the message is one sentence for the user.

    public: the same for the server, without the value.
    """

    def __init__(self, message: str, public: str = "a setting cannot be used") -> None:
        super().__init__(message, public)


@dataclass(frozen=True)
class Says:
    """What a text field takes, in words that follow "must be"."""

    words: str


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, StringConstraints(min_length=1), Says("a text that is not empty")]
Names = Annotated[
    str,
    StringConstraints(pattern=r"^\s*[^,\s]+\s*(,\s*[^,\s]+\s*)*$"),
    Says("one or more names between commas"),
]


def key(name: str) -> str:
    """A field's name as users write it: `local_epochs` is `local-epochs`."""
    return name.replace("_", "-")


def fields_of(table: type) -> dict[str, FieldInfo]:
    """Every field of a table of settings by its name; a table inside a table is no field."""
    found = table.__pydantic_fields__  # type: ignore[attr-defined]  # pydantic adds it
    return {name: field for name, field in found.items() if not is_dataclass(field.annotation)}


def fill(table: type[Table], values: Mapping[str, Any], label: str = "config key") -> Table:
    """A table of settings from values by field name; a field that is missing takes its default.

    Raises
    ------
    ConfigError: a value that its field does not take; the message starts with `label` and the key.
    """
    try:
        return table(**values)
    except ValidationError as error:
        first = error.errors()[0]
    if "error" in first.get("ctx", {}):
        raise ConfigError(str(first["ctx"]["error"]))
    name = str(first["loc"][0])
    words = "a finite number" if first["type"] == "finite_number" else accepted(fields_of(table)[name])
    public = f"{label} '{key(name)}' must be {words}"
    raise ConfigError(f"{public}, got {first['input']!r}", public)


def accepted(field: FieldInfo) -> str:
    """What a field takes, in words that follow "must be": `a whole number of at least 1`, `'a' or 'b'`."""
    if get_origin(field.annotation) is Literal:
        *others, last = map(repr, get_args(field.annotation))
        return f"{', '.join(others)} or {last}"
    for item in field.metadata:
        if isinstance(item, Says):
            return item.words
    kinds: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    kind = kinds.get(field.annotation, "a text")
    return " ".join([kind, *_bounds(field)])


def _bounds(field: FieldInfo) -> list[str]:
    """`from 0 to 1`, `above 0`, `of at least 0 and below 1`; empty without bounds."""
    kinds = ("ge", "gt", "le", "lt")
    found = {kind: getattr(item, kind) for item in field.metadata for kind in kinds if hasattr(item, kind)}
    if {"ge", "le"} <= found.keys():
        return [f"from {found['ge']} to {found['le']}"]
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    said = [f"{word} {found[kind]}" for kind, word in words.items() if kind in found]
    return [" and ".join(said)] if said else []
