"""The report as one HTML page that opens anywhere: no network, no scripts, every part optional.

Texts that clients wrote (names, classes, reasons, histories) are escaped, and read as if a stranger wrote them.
"""

import base64
import json
from pathlib import Path

import jinja2
from markupsafe import Markup

from common.workspace import safe_name
from fedlmg_server.report import montage, plots
from fedlmg_server.report.results import best, check, percent, points, rejections
from fedlmg_server.report.template import PAGE

MAX_POINTS = 2000
MAX_LINES = 24
LIMITS = (
    "Each client measured its own accuracies on its own data and reported them; the server cannot check them.",
    "One run with one seed: differences of a point or two are within its noise.",
    "Synthetic images follow the clients' feature statistics and classifiers. They are not copies of private images, "
    "but without differential privacy in the clients' training there is no formal promise about what they reveal.",
    "Rivals and the ceiling need all test images in one place, so they are measured in simulation only. "
    "The ceiling trains the same student on all clients' real images.",
)


def render(workspace: Path, results: dict) -> str:
    """The page as HTML.

    Parameters
    ----------
    workspace: the run's folder; images, histories and reasons are shown where it has them.
    results: as `results.build` returns it.

    Raises
    ------
    ValueError: `results` is not what `results.build` returns.
    """
    check(results)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "data_uri": _data_uri}
    environment.globals |= {"points": points, "best": best, "rejections": rejections}
    names = {safe_name(name): name for name in [*results["clients"], *results["missing"]]}
    return environment.from_string(PAGE).render(
        results=results,
        headline=headline(results),
        bars=_bars(results),
        curves=list(_curves(workspace, names)),
        grids=list(_grids(workspace, names)),
        missing=_missing(workspace, results, names),
        versions=_mapping(_read_json(workspace / "run.json").get("versions")),
        limits=LIMITS,
    )


def headline(results: dict) -> str:
    """The result in a sentence: the aggregated model against the clients' own, in percentage points."""
    accuracy, clients = results["aggregated"]["accuracy"], results["clients"]
    if accuracy is None:
        return "The aggregated model has not been measured by any client yet."
    elsewhere = [client["own_accuracy_all_clients"] for client in clients.values()]
    own = [(client["aggregated_accuracy"], client["own_accuracy"]) for client in clients.values()]
    changes = {
        "the clients' own models on the same images": [accuracy - old for old in elsewhere if old is not None],
        "each client's own model on its own images": [new - old for new, old in own if None not in (new, old)],
    }
    start = f"One upload from each of {len(clients)} clients, one model: right on {percent(accuracy)} % of their images"
    than = [f"{_more_or_fewer(sum(each) / len(each))} than {rival}" for rival, each in changes.items() if each]
    return ", ".join([start, *than[:1]]) + "".join(f" and {words}" for words in than[1:]) + "."


def _more_or_fewer(difference: float) -> str:
    return f"{100 * abs(difference):.1f} points {'more' if difference >= 0 else 'fewer'}"


def _bars(results: dict) -> dict | None:
    measured = {n: m["accuracy"] for n, m in results["methods"].items() if m["accuracy"] is not None}
    if not measured:
        return None
    alt = "Mean accuracy of each method in percent: " + ", ".join(f"{n} {percent(a)}" for n, a in measured.items())
    return {"svg": plots.bars(measured), "alt": alt}


def _curves(workspace: Path, names: dict[str, str]):
    panels = {"Clients: training loss": {}, "Clients: validation accuracy": {}, "Distillation: loss": {}}
    for manifest in sorted(workspace.glob("uploads/*/manifest.json"))[:MAX_LINES]:
        name = names.get(manifest.parent.name, manifest.parent.name)
        history = _mapping(_read_json(manifest).get("training")).get("history")
        panels["Clients: training loss"][name] = _curve(history, "train_loss")
        panels["Clients: validation accuracy"][name] = _curve(history, "validation_accuracy")
    for name, history in _read_json(workspace / "report" / "histories.json").items():
        panels["Distillation: loss"][name] = _curve(history, "loss")
    for title, lines in panels.items():
        if lines := {name: curve for name, curve in lines.items() if curve}:
            spans = [f"{name} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for name, curve in lines.items()]
            yield {"svg": plots.curves(title, lines), "alt": f"{title} by epoch: {', '.join(spans)}"}


def _curve(history: object, key: str) -> plots.Curve:
    entries = history[:MAX_POINTS] if isinstance(history, list) else []
    pairs = [(entry.get("epoch"), entry.get(key)) for entry in entries if isinstance(entry, dict)]
    return [pair for pair in pairs if all(isinstance(value, int | float) and abs(value) < 1e9 for value in pair)]


def _grids(workspace: Path, names: dict[str, str]):
    classes = {
        safe_name(str(name)): str(name)
        for manifest in workspace.glob("uploads/*/manifest.json")
        for name in _list(_read_json(manifest).get("class_names"))
    }
    for folder, title in (("synthetic", "Synthetic images"), ("synthetic-prompts-only", "The same without guidance")):
        if (grid := montage.grid(workspace / folder)) is not None:
            yield {
                "title": title,
                "classes": [classes.get(name, name) for name in grid.classes],
                "num_classes": grid.num_classes,
                "clients": {names.get(name, name): png for name, png in grid.clients.items()},
                "num_clients": grid.num_clients,
            }


def _missing(workspace: Path, results: dict, names: dict[str, str]) -> dict[str, str]:
    quarantined = {
        names.get(path.parent.name, path.parent.name): str(_read_json(path).get("reason", "no reason was kept"))
        for path in sorted(workspace.glob("quarantine/*/reason.json"))
    }
    return quarantined | {name: str(reason) for name, reason in results["missing"].items()}


def _read_json(path: Path) -> dict:
    try:
        return _mapping(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError):
        return {}


def _mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list:
    return value if isinstance(value, list) else []


def _data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
