"""The report as one HTML page that opens anywhere: no network, no scripts, every part optional.

Texts that clients wrote (names, classes, reasons, histories) are escaped, and read as if a stranger wrote them.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from common import manifest
from common.html_page import format_percent, load_template
from common.manifest import MOST_POINTS, Manifest, ManifestError
from common.names import safe_name
from fedlmg_server import run_record
from fedlmg_server.method_names import UPPER_BOUNDS, title_method
from fedlmg_server.report import generated, montage, plots, views, worth
from fedlmg_server.report.figures import format_points
from fedlmg_server.results import Results
from fedlmg_server.synthesis import filters, scores
from fedlmg_server.synthesis.scores import Score

TEMPLATE = Path("fedlmg_server/report/pages/report.html.j2")
MAX_LINES = 24
LIMITS = (
    "Each client measured its own accuracies on its own data and reported them; the server cannot check them.",
    "One run with one seed: differences of a point or two are within its noise.",
    "Synthetic images follow the clients' feature statistics and classifiers. They are not copies of private images, "
    "but without differential privacy in the clients' training there is no formal promise about what they reveal.",
    "Baselines and upper bounds need all test images in one place, so only a simulation measures them. "
    "An upper bound trains the same student on all clients' real images.",
)


def render(workspace: Path, results: Results) -> str:
    """The page as HTML.

    Parameters
    ----------
    workspace: the run's folder; images, histories and reasons are shown where it has them.
    """
    template = load_template(TEMPLATE)
    names = {safe_name(name): name for name in [*results.clients, *results.missing]}
    return template.render(
        points=format_points,
        title_method=title_method,
        upper_bounds=UPPER_BOUNDS,
        views=views,
        worth=worth,
        results=results,
        headline=headline(results),
        bars=_bars(results),
        curves=list(_curves(workspace, names)),
        step_curves=list(_step_curves(workspace, names)),
        grids=list(_grids(workspace, names, results.config.get("min-confidence", 0.0))),
        missing=results.missing,
        versions=_mapping(_read_json(workspace / run_record.FILE).get("versions")),
        limits=LIMITS,
    )


def headline(results: Results) -> str:
    """The result in a sentence: the aggregated model against the clients' own, in percentage points; and one on what
    the round was worth, where clients told."""
    accuracy, clients = results.aggregated.accuracy, results.clients
    if accuracy is None:
        return "The aggregated model has not been measured by any client yet."
    elsewhere = [client.own_accuracy_all_clients for client in clients.values()]
    own = [(client.aggregated_accuracy, client.own_accuracy) for client in clients.values()]
    changes = {
        "the clients' own models on the same images": [accuracy - old for old in elsewhere if old is not None],
        "each client's own model on its own images": [
            new - old for new, old in own if new is not None and old is not None
        ],
    }
    right = format_percent(accuracy)
    start = f"One upload from each of {len(clients)} clients, one model: right on {right} % of their images"
    than = [f"{_more_or_fewer(sum(each) / len(each))} than {baseline}" for baseline, each in changes.items() if each]
    compared = ", ".join([start, *than[:1]]) + "".join(f" and {words}" for words in than[1:]) + "."
    return f"{compared} {worth.of_mean_client(results)}".strip()


def _more_or_fewer(difference: float) -> str:
    return f"{100 * abs(difference):.1f} points {'more' if difference >= 0 else 'fewer'}"


def _bars(results: Results) -> dict | None:
    measured = {title_method(n): m.accuracy for n, m in results.methods.items() if m.accuracy is not None}
    if not measured:
        return None
    alt = "Mean accuracy of each method in percent: " + ", ".join(
        f"{n} {format_percent(a)}" for n, a in measured.items()
    )
    return {"svg": plots.bars(measured), "alt": alt}


def _curves(workspace: Path, names: dict[str, str]) -> Iterator[dict]:
    panels: dict[str, dict[str, plots.Curve]] = {"Clients: training loss": {}, "Clients: validation accuracy": {}}
    for folder, said in list(_manifests(workspace))[:MAX_LINES]:
        name = names.get(folder, folder)
        panels["Clients: training loss"][name] = said.training.losses()
        panels["Clients: validation accuracy"][name] = said.training.validation_accuracies()
    for title, lines in panels.items():
        yield from _plot(title, lines, "epoch")
    # An epoch of a student with general images takes many times the updates of one without.
    students = {
        name: [(100 * epoch / curve[-1][0], loss) for epoch, loss in curve]
        for name, history in _read_json(workspace / "report" / "histories.json").items()
        if (curve := _read_losses(history)) and curve[-1][0] > 0
    }
    yield from _plot("Distillation: loss", students, "share of the training, %")


def _read_losses(history: object) -> plots.Curve:
    """The (epoch, loss) points of a student's training. Entries whose numbers cannot be plotted are skipped."""
    entries = history[:MOST_POINTS] if isinstance(history, list) else []
    points = [(entry.get("epoch"), entry.get("loss")) for entry in entries if isinstance(entry, dict)]
    return [(epoch, loss) for epoch, loss in points if _is_plottable(epoch) and _is_plottable(loss)]


def _is_plottable(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < 1e9


def _manifests(workspace: Path) -> Iterator[tuple[str, Manifest]]:
    """Folder name and manifest of every upload whose manifest can be read."""
    for file in sorted(workspace.glob("uploads/*/manifest.json")):
        with suppress(ManifestError, OSError):
            yield file.parent.name, manifest.read(file.parent)


def _step_curves(workspace: Path, names: dict[str, str]) -> Iterator[dict]:
    folders = sorted(path for path in workspace.glob("synthetic/*") if path.is_dir())[:MAX_LINES]
    found = {names.get(folder.name, folder.name): generated.loss_curves(folder) for folder in folders}
    for kind in ("classification", "statistics"):
        lines = {name: losses[kind] for name, losses in found.items()}
        yield from _plot(f"Synthesis: {kind} loss", lines, "step of noise editing, then of guided denoising")


def _plot(title: str, lines: dict[str, plots.Curve], across: str) -> Iterator[dict]:
    if lines := {name: points for name, points in lines.items() if points}:
        spans = [f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in lines.items()]
        yield {"svg": plots.curves(title, lines, across), "alt": f"{title} by {across}: {', '.join(spans)}"}


def _grids(workspace: Path, names: dict[str, str], min_confidence: float) -> Iterator[dict]:
    classes = {safe_name(name): name for _, said in _manifests(workspace) for name in said.class_names}
    for folder, title in (("synthetic", "Synthetic images"), ("synthetic-prompts-only", "The same without guidance")):
        known = {path.name: scores.read_scores(path) for path in (workspace / folder).glob("*")}
        unsafe = {
            workspace / folder / client / file
            for client, found in known.items()
            for file, score in found.items()
            if not score.safe
        }
        if (grid := montage.grid(workspace / folder, unsafe)) is not None:
            yield {
                "title": title,
                "classes": [classes.get(name, name) for name in grid.classes],
                "num_classes": grid.num_classes,
                "clients": {
                    names.get(client, client): _tiles(
                        [strips.get(name) for name in grid.classes],
                        known[client],
                        min_confidence if folder == "synthetic" else 0.0,
                    )
                    for client, strips in grid.clients.items()
                },
                "num_clients": grid.num_clients,
            }


def _tiles(strips: list[montage.Strip | None], known: dict[str, Score], min_confidence: float) -> list[dict | None]:
    """For each class of one client its picture, and a sentence on each image in it; None where there is none."""
    return [
        None
        if strip is None
        else {"png": strip.png, "lines": [_caption(known.get(file), min_confidence) for file in strip.files]}
        for strip in strips
    ]


def _caption(score: Score | None, min_confidence: float) -> str:
    if score is None:
        return "not scored"
    read = "read as asked" if score.agrees else "read as another class"
    why = filters.find_reason(score, min_confidence)
    return f"{read}, {format_percent(score.confidence)} % for this class; {f'rejected: {why}' if why else 'accepted'}"


def _read_json(path: Path) -> dict:
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}
