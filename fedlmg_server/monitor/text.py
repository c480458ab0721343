"""Text from clients, made safe to print in a terminal."""

from rich.markup import escape

MOST_CHARACTERS = 500


def make_printable(text: object) -> str:
    """Replace characters that are not printable, such as those that move a terminal's cursor, by spaces."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def shorten(text: object) -> str:
    """Make the text printable, and cut it to 500 characters."""
    shown = make_printable(text)
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 3]}..."


def make_safe_markup(text: object) -> str:
    """Make the text printable, and escape what Rich would read as markup."""
    return escape(make_printable(text))
