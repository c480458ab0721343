"""How every command reports a failure."""

import typer
from rich.console import Console
from rich.markup import escape


def print_failure(console: Console, reason: object, what: str = "") -> typer.Exit:
    """Print in red the reason of a failure, after `what` failed; returns the exception to raise, with exit status 1."""
    text = escape(str(reason))
    console.print(f"[red]{what}:[/] {text}" if what else f"[red]{text}[/]", soft_wrap=True)
    return typer.Exit(1)
