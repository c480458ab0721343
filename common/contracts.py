"""Records that one program writes and another reads: frozen pydantic models with errors of one sentence.

Values are not converted: a number in quotes is no number, and true is not 1. Keys that a model does not know are
ignored.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from common.names import LONGEST_NAME, is_sane_name


class Contract(BaseModel):
    """`model_validate` reads a record and raises pydantic's ValidationError; `to_json` writes it."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """The record as a dictionary that the `json` module can write."""
        return self.model_dump(mode="json", by_alias=True)


def _check_name(name: str) -> str:
    if not is_sane_name(name):
        raise ValueError(f"a name must be printable, with 1 to {LONGEST_NAME} characters and no blank at its ends")
    return name


Name = Annotated[str, AfterValidator(_check_name)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
"""A finite number that is not negative."""


Record = TypeVar("Record", bound=Contract)


def parse_record(kind: type[Record], text: object, record: str) -> Record:
    """A record from the JSON text of another party.

    record: its name, with which the sentence of an error begins, such as `its answer`.

    Raises
    ------
    ValueError: the text is no such record.
    """
    try:
        content = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{record} is not JSON ({error})") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain_error(error, record)) from None


PLAIN = {
    "Input should": "it must",
    "List should": "it must",
    " after validation": "",
    "valid integer": "whole number",
    "valid number": "number",
    "valid string": "text",
    "valid list": "list",
}
"""Words in pydantic's messages -> the words in ours."""


def explain_error(error: ValidationError, record: str) -> str:
    """The first error of a record in one sentence: the key, the value that was found, and what was expected.

    record: the name of the record with which the sentence begins, such as `its manifest`.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    for words, plain in PLAIN.items():
        reason = reason.replace(words, plain)
    if first["type"] in ("model_type", "dict_type"):
        reason = "it must be an object"
    if first["type"] == "missing":
        return f"{record} lacks '{key}'"
    if first["type"] == "extra_forbidden":
        return f"{record} has the unknown key '{key}'"
    if not key:
        return f"{record} {reason.removeprefix('it ')}"
    return f"{record} has '{key}' = {show_value(first['input'])}: {reason}"


def show_value(value: object) -> str:
    """Any value from another party as a short ASCII text."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # The value is nested too deeply, or is an integer with too many digits.
        text = f"(a {type(value).__name__} too large to show)"
    return text if len(text) <= 80 else f"{text[:77]}..."
