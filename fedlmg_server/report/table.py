"""The run's figures in the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.html_page import format_percent
from fedlmg_server.method_names import UPPER_BOUNDS, title_method
from fedlmg_server.monitor.text import make_safe_markup
from fedlmg_server.report import views, worth
from fedlmg_server.report.figures import format_points
from fedlmg_server.results import ClientResult, Outcome, Results

FEW_KEPT = 0.5
"""Share of a client's images below which the user is told."""
COLD = ("own", "on all", "one model", "points")
"""Headers of a client's figures. Points: the one model against the client's own."""
WARM = ("own", "gene-\nral", "alone", "one\nmodel", "perso-\nnal", "gain", "on all")
"""The same in a warm-started run, narrow enough for a terminal of 100 columns."""
WARM_CAPTION = (
    "alone: the general model, fine-tuned without the federation; gain: personal against alone; "
    "on all: personal, on everybody's images"
)
MOST_SENTENCES = 12
"""Of single clients on what the round was worth."""


def print_results(results: Results, report: Path, console: Console | None = None) -> None:
    """Clients, methods, who is missing; ends with the report's path. Accuracies in percent, differences in points."""
    console = console or Console()
    console.print(_clients(results))
    _print_worth(results, console)
    _print_certainty(results, console)
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
    if unjudged := [make_safe_markup(name) for name, client in results.clients.items() if client.labels == "unknown"]:
        console.print(f"The witness could not judge the labels of {', '.join(unjudged[:MOST_SENTENCES])}.")
    outcomes = results.outcomes
    if any(outcome.reason for outcome in outcomes.values()):
        console.print(_outcomes(outcomes))
    synthesis = results.synthesis
    console.print(
        f"{synthesis.num_images} synthetic images in {synthesis.seconds:.0f} s "
        f"({synthesis.images_per_second:.1f} a second); all stages {sum(results.stages.values()):.0f} s"
    )
    console.print(f"Report: {escape(str(report))}", soft_wrap=True)


def _table(title: str, caption: str | None = None) -> Table:
    """Narrow, for many columns must fit into a terminal."""
    return Table(title=title, caption=caption, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _print_certainty(results: Results, console: Console) -> None:
    """How sure the clients' accuracies are, and how good each model is where every class counts alike."""
    if not (found := views.certainty(results)):
        return
    table = _table("Own test images: 95 % interval of the accuracy, balanced accuracy")
    table.add_column("client")
    for header in ("images", *found["columns"]):
        table.add_column(header, justify="right")
    for name, (count, cells) in found["rows"].items():
        table.add_row(make_safe_markup(name), str(count), *(cell.replace(", ", "\n") for cell in cells))
    console.print(table)


def _print_worth(results: Results, console: Console) -> None:
    """A sentence for the mean client, and for each client; of many, for those that gained nothing."""
    if not (mean := worth.of_mean_client(results)):
        return
    console.print(f"[bold]{mean}[/]")
    sentences, no_gain = worth.of_clients(results), worth.clients_without_gain(results)
    shown = list(sentences) if len(sentences) <= MOST_SENTENCES else no_gain[:MOST_SENTENCES]
    for name in shown:
        color = "yellow" if name in no_gain else "green"
        console.print(f"[{color}]{make_safe_markup(name)}:[/] {sentences[name]}")


def _clients(results: Results) -> Table:
    aggregated = results.aggregated
    model = f"{aggregated.architecture} by {aggregated.aggregation}"
    table = _table(f"Clients, accuracy in % (one model: {model})", WARM_CAPTION if results.warm_started else None)
    table.add_column("client")
    table.add_column("own model")
    headers, figures = (WARM, _with_start) if results.warm_started else (COLD, _without_start)
    for header in ("images", "MB", *headers):
        table.add_column(header, justify="right")
    for name, client in results.clients.items():
        table.add_row(
            make_safe_markup(name),
            make_safe_markup(client.architecture),
            str(client.num_examples),
            f"{client.upload_bytes / 1e6:.1f}",
            *figures(client),
        )
    return table


def _without_start(client: ClientResult) -> tuple[str, ...]:
    """The cells below `COLD`."""
    own, returned = client.own_accuracy, client.aggregated_accuracy
    return (
        format_percent(own),
        format_percent(client.own_accuracy_all_clients),
        f"[bold]{format_percent(returned)}[/]",
        format_points(returned, own),
    )


def _with_start(client: ClientResult) -> tuple[str, ...]:
    """The cells below `WARM`."""
    without, personal = client.no_federation_accuracy, client.personal_accuracy
    return (
        format_percent(client.own_accuracy),
        format_percent(client.general_accuracy),
        format_percent(without),
        format_percent(client.aggregated_accuracy),
        f"[bold]{format_percent(personal)}[/]",
        format_points(personal, without),
        format_percent(client.personal_accuracy_all_clients),
    )


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
    table = _table("Methods, accuracy in % on each client's test images")
    table.add_column("method")
    names = list(results.clients)
    is_balanced = any(method.balanced_accuracy is not None for method in results.methods.values())
    for header in ("mean", *(["balanced"] * is_balanced), *names):
        table.add_column(make_safe_markup(header), justify="right")
    for name, method in results.methods.items():
        cells = [_cell(method.accuracy, results.best_accuracy(), name)]
        cells += [format_percent(method.balanced_accuracy)] * is_balanced
        cells += [_cell(method.per_client.get(client), results.best_accuracy(client), name) for client in names]
        table.add_row(make_safe_markup(title_method(name)), *cells)
    return table


def _cell(accuracy: float | None, highest: float | None, method: str) -> str:
    text = format_percent(accuracy)
    is_best = accuracy is not None and accuracy == highest and method not in UPPER_BOUNDS
    return f"[bold green]{text}[/]" if is_best else text
