"""Text from elsewhere, made fit to be shown."""

MOST_CHARACTERS = 500


def plain(text: object) -> str:
    """Without what moves a terminal's cursor or changes its colours."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def shortened(text: object) -> str:
    """Plain, and no longer than a few lines."""
    shown = plain(text)
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 3]}..."
