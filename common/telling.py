"""What others may hear of an error: a public sentence beside the one for the user of the machine where it happened."""

import os


class ToldError(ValueError):
    """An error of which a client tells the server; `str` is the sentence for the client's own user.

    public: the sentence for the server. It names no file, folder, class, path or other text of this machine; counts,
    keys and known architectures are allowed. None: the message itself is such a sentence.
    """

    def __init__(self, message: str, public: str | None = None) -> None:
        super().__init__(message)
        self.public = message if public is None else public


def public_sentence(error: BaseException) -> str:
    """What the server may hear of any error: its public sentence, or else no more than its kind.

    The text of an error from a library can quote a path or a value, so nothing of it is told.
    """
    if isinstance(error, ToldError):
        return error.public
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ in ("builtins", "torch"))
    if isinstance(error, OSError) and isinstance(error.errno, int):
        kind += f": {os.strerror(error.errno)}"
    return f"it met an error that it does not tell in full ({kind}): its own console and status page do"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for the user of this machine; its kind if it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
