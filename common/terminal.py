"""What every command does when it fails."""

import typer
from rich.console import Console
from rich.markup import escape


def print_failure(console: Console, reason: object, what: str = "") -> typer.Exit:
    """Print in red that `what` failed, and the reason; return the exception to raise, with exit status 1."""
    text = escape(str(reason))
    console.print(f"[red]{what}:[/] {text}" if what else f"[red]{text}[/]", soft_wrap=True)
    return typer.Exit(1)
