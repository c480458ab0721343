"""How every command prints, reports a failure, and ends: 0 done, 1 a mistake, 2 wrong usage, 3 the other side."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

MISTAKE, OTHER_SIDE = 1, 3
"""Exit statuses: what the user gave cannot be used; a server or the clients of a run did not do their part."""


def run_commands(app: typer.Typer) -> None:
    """Run the command that the program's arguments name; its output never fails because of a terminal's encoding."""
    keep_every_character()
    app()


def keep_every_character() -> None:
    """Print characters that the output's encoding lacks as escapes, such as `\\u732b`, and not fail at them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_lossless(text: str) -> bool:
    """Whether the standard output can print this text as it is."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        return False
    return True


def print_failure(console: Console, reason: object, what: str = "", status: int = MISTAKE) -> typer.Exit:
    """Print in red the reason of a failure, after `what` failed; returns the exception to raise, with this status."""
    text = escape(str(reason))
    console.print(f"[red]{what}:[/] {text}" if what else f"[red]{text}[/]", soft_wrap=True)
    return typer.Exit(status)
