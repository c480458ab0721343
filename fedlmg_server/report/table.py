"""The run's figures in the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.html_page import format_percent
from fedlmg_server.monitor.text import make_safe_markup
from fedlmg_server.results import Outcome, Results, format_points, title_method

FEW_KEPT = 0.5
"""Share of a client's images below which the user is told."""


def print_results(results: Results, report: Path, console: Console | None = None) -> None:
    """Clients, methods, who is missing; ends with the report's path. Accuracies in percent, differences in points."""
    console = console or Console()
    console.print(_clients(results))
    if results.methods:
        console.print(_methods(results))
        if "centralised" not in results.methods:
            console.print("Only what the run returns was measured: `fedlmg run --compare` measures every baseline.")
    for name, client in results.clients.items():
        if client.weight_reason:
            state = f"weight {client.weight:.2f}" if client.weight else "left out"
            console.print(f"[yellow]{state}:[/] {make_safe_markup(name)}: {make_safe_markup(client.weight_reason)}")
        images = client.images
        if images and images.kept < FEW_KEPT * images.generated:
            console.print(
                f"[yellow]few images:[/] {make_safe_markup(name)}: {images.kept} of {images.generated} are "
                "learned from; train its classifier longer, or lower 'min-confidence'"
            )
    outcomes = results.outcomes
    if any(outcome.reason for outcome in outcomes.values()):
        console.print(_outcomes(outcomes))
    synthesis = results.synthesis
    console.print(
        f"{synthesis.num_images} synthetic images in {synthesis.seconds:.0f} s "
        f"({synthesis.images_per_second:.1f} a second); all stages {sum(results.stages.values()):.0f} s"
    )
    console.print(f"Report: {escape(str(report))}", soft_wrap=True)


def _clients(results: Results) -> Table:
    aggregated = results.aggregated
    model = f"{aggregated.architecture} by {aggregated.aggregation}"
    table = Table(
        title=f"Clients, accuracy in % (one model: {model})", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    table.add_column("client")
    table.add_column("own model")
    for header in ("images", "MB", "own", "on all", "one model", "points"):
        table.add_column(header, justify="right")
    for name, client in results.clients.items():
        own, returned = client.own_accuracy, client.aggregated_accuracy
        table.add_row(
            make_safe_markup(name),
            make_safe_markup(client.architecture),
            str(client.num_examples),
            f"{client.upload_bytes / 1e6:.1f}",
            format_percent(own),
            format_percent(client.own_accuracy_all_clients),
            f"[bold]{format_percent(returned)}[/]",
            format_points(returned, own),
        )
    return table


def _outcomes(outcomes: dict[str, Outcome]) -> Table:
    table = Table(
        "client",
        "",
        "why",
        title="What became of each client",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, outcome in outcomes.items():
        color = "yellow" if outcome.reason else "green"
        table.add_row(make_safe_markup(name), f"[{color}]{outcome.state}[/]", make_safe_markup(outcome.reason))
    return table


def _methods(results: Results) -> Table:
    table = Table(
        title="Methods, accuracy in % on each client's test images",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("method")
    names = list(results.clients)
    for header in ("mean", *names):
        table.add_column(make_safe_markup(header), justify="right")
    for name, method in results.methods.items():
        cells = [_cell(method.accuracy, results.best_accuracy(), name)]
        cells += [_cell(method.per_client.get(client), results.best_accuracy(client), name) for client in names]
        table.add_row(make_safe_markup(title_method(name)), *cells)
    return table


def _cell(accuracy: float | None, highest: float | None, method: str) -> str:
    text = format_percent(accuracy)
    return (
        f"[bold green]{text}[/]" if accuracy is not None and accuracy == highest and method != "centralised" else text
    )
