"""The rows of a benchmark: one method or variant on one run; and their CSV, Markdown table and plots."""

import csv
import io
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from common.html_page import DASH
from common.names import safe_name
from common.storage.atomic import write_bytes
from common.vision.shares import wilson_interval
from fedlmg_server.baselines.outcome import Cost
from fedlmg_server.method_names import title_method
from fedlmg_server.report import plots
from fedlmg_server.report.figures import format_interval
from fedlmg_server.report.markdown import line, spread

COSTS = tuple(cost.name for cost in fields(Cost))
BASE = "default"
"""The row that others of its setting are compared with, seed by seed."""


@dataclass(kw_only=True)
class Row(Cost):
    """Accuracies in [0, 1], and what they cost."""

    setting: str
    method: str
    seed: int
    accuracy: float | None = None
    """Mean over the clients' test sets; None: see `note`."""
    per_client: dict[str, float] = field(default_factory=dict)
    balanced_accuracy: float | None = None
    """The same, with every class of a client counting alike."""
    balanced_per_client: dict[str, float] = field(default_factory=dict)
    test_images: dict[str, int] = field(default_factory=dict)
    """Client -> number of its test images."""
    kept: float | None = None
    """Of a variant, the share of its images that are learned from."""
    attack_success: float | None = None
    """Of a backdoor, where one was measured."""
    note: str = ""
    """Why there is no accuracy, or what is to be known of it."""


@dataclass(frozen=True)
class Summary:
    """One method in one setting over its seeds."""

    rows: list[Row]

    @property
    def method(self) -> str:
        return self.rows[0].method

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.accuracy is not None]

    def mean(self, key: str) -> float:
        return statistics.mean(getattr(row, key) or 0 for row in self.measured)

    def percent(self, client: str | None = None) -> str:
        """Mean and standard deviation over the seeds in %; a dash where not measured."""
        values = [row.accuracy if client is None else row.per_client.get(client) for row in self.measured]
        return spread(100 * value for value in values if value is not None)

    def balanced(self, client: str | None = None) -> str:
        """`percent` of the balanced accuracies."""
        of = ((row.balanced_accuracy if client is None else row.balanced_per_client.get(client)) for row in self.rows)
        return spread(100 * value for value in of if value is not None)

    def sure(self, client: str) -> str:
        """`percent`, and where the mean accuracy lies with a confidence of 95 %, as the client has few test images."""
        values = [row.per_client[client] for row in self.measured if client in row.per_client]
        counts = [row.test_images[client] for row in self.measured if row.test_images.get(client)]
        if not values or not counts:
            return self.percent(client)
        return f"{self.percent(client)} ({format_interval(wilson_interval(statistics.mean(values), min(counts)))})"

    def against(self, base: "Summary") -> str:
        """Mean and standard deviation of the differences from `base`, in points, over the seeds that both have."""
        found = {row.seed: row.accuracy for row in base.rows if row.accuracy is not None}
        measured = {row.seed: row.accuracy for row in self.rows if row.accuracy is not None}
        differences = (accuracy - found[seed] for seed, accuracy in measured.items() if seed in found)
        return spread((100 * difference for difference in differences), sign="+")


def summaries(rows: list[Row]) -> Iterator[tuple[str, list[Summary]]]:
    """Each setting with its methods, in the order of the rows."""
    for setting in dict.fromkeys(row.setting for row in rows):
        of_setting = [row for row in rows if row.setting == setting]
        names = dict.fromkeys(row.method for row in of_setting)
        yield setting, [Summary([row for row in of_setting if row.method == name]) for name in names]


def write(rows: list[Row], published: dict[str, dict[str, float]], out: Path) -> None:
    """`rows.csv`, `table.md`, and for each setting its plots: by client (balanced accuracies where all rows have them),
    and against each cost that varies."""
    write_bytes(out / "rows.csv", as_csv(rows).encode())
    write_bytes(out / "table.md", markdown(rows, published).encode())
    for setting, methods in summaries(rows):
        found = [each for each in methods if each.measured]
        if not found:
            continue
        are_balanced = all(row.balanced_per_client for each in found for row in each.measured)
        by_client = {each.method: _mean_by_client(each, are_balanced) for each in found}
        figures = {"clients": plots.dots(by_client, "balanced accuracy" if are_balanced else "accuracy")}
        for name, key, across in (
            ("images", "num_images", "synthetic images"),
            ("seconds", "server_seconds", "seconds on the server"),
            ("bytes", "upload_bytes", "bytes uploaded by all clients"),
        ):
            points = {each.method: (each.mean(key), 100 * each.mean("accuracy")) for each in found}
            if len({x for x, _ in points.values()}) > 1:
                figures[name] = plots.scatter(points, across)
        for name, svg in figures.items():
            write_bytes(out / "plots" / f"{safe_name(setting)}-{name}.svg", svg)


def _mean_by_client(summary: Summary, are_balanced: bool) -> dict[str, float]:
    found = [row.balanced_per_client if are_balanced else row.per_client for row in summary.measured]
    clients = dict.fromkeys(client for per_client in found for client in per_client)
    return {
        client: statistics.mean(per_client[client] for per_client in found if client in per_client)
        for client in clients
    }


def as_csv(rows: list[Row]) -> str:
    """One line a row; the clients' accuracies behind the other columns."""
    clients = list(dict.fromkeys(client for row in rows for client in row.per_client))
    columns = ["setting", "method", "seed", "accuracy", *COSTS, "kept", "attack_success", "note"]
    alike = list(dict.fromkeys(client for row in rows for client in row.balanced_per_client))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    further = ["balanced_accuracy", *(f"balanced accuracy {client}" for client in alike)] if alike else []
    writer.writerow([*columns, *(f"accuracy {client}" for client in clients), *further])
    for row in rows:
        flat = asdict(row)
        balanced = [row.balanced_accuracy, *(row.balanced_per_client.get(client, "") for client in alike)]
        by_client = [row.per_client.get(client, "") for client in clients]
        writer.writerow([*(flat[name] for name in columns), *by_client, *(balanced if alike else [])])
    return text.getvalue()


def markdown(rows: list[Row], published: dict[str, dict[str, float]]) -> str:
    """A section for each setting: accuracy, the published figure, the difference from `BASE`, costs; then by client."""
    parts = []
    for setting, methods in summaries(rows):
        seeds = sorted({row.seed for each in methods for row in each.rows})
        told = published.get(setting, {})
        base = next((each for each in methods if each.method == BASE), None)
        headers = ["method", f"accuracy, % (seeds {', '.join(map(str, seeds))})", *(["published, %"] if told else [])]
        alike = any(row.balanced_per_client for each in methods for row in each.rows)
        headers += ["balanced, %"] if alike else []
        headers += [f"against {BASE}, points"] if base else []
        attacked = any(row.attack_success is not None for each in methods for row in each.rows)
        headers += ["attack succeeds, %"] if attacked else []
        headers += ["rounds", "epochs", "MB up", "MB down", "client s", "server s", "images"]
        parts += [f"## {setting}\n", line(headers), line(["---"] * len(headers))]
        for each in methods:
            shown = [title_method(each.method), each.percent(), *([str(told.get(each.method, DASH))] if told else [])]
            shown += [each.balanced()] if alike else []
            compared = [DASH if each is base else each.against(base)] if base else []
            fallen = [100 * row.attack_success for row in each.rows if row.attack_success is not None]
            parts.append(line(shown + compared + ([spread(fallen)] if attacked else []) + _costs(each)))
        clients = list(dict.fromkeys(client for each in methods for row in each.rows for client in row.per_client))
        parts += ["", line(["method", *clients]), line(["---"] * (len(clients) + 1))]
        known = [each for each in methods if each.measured]
        parts += [line([title_method(each.method), *map(each.sure, clients)]) for each in known]
        if alike:
            parts += ["", line(["method, balanced", *clients]), line(["---"] * (len(clients) + 1))]
            parts += [line([title_method(each.method), *map(each.balanced, clients)]) for each in known]
        notes = [
            f"- {title_method(each.method)} does not apply: {each.rows[0].note}"
            for each in methods
            if not each.measured
        ]
        notes += [
            f"- {row.method}, seed {row.seed}: {row.note}" for each in methods for row in each.measured if row.note
        ]
        parts += ["", *notes, ""]
    return "\n".join(parts)


def _costs(summary: Summary) -> list[str]:
    if not summary.measured:
        return [DASH] * len(COSTS)
    scale = {"upload_bytes": 1e-6, "download_bytes": 1e-6}
    digits = {"upload_bytes": 1, "download_bytes": 1}
    return [f"{summary.mean(key) * scale.get(key, 1):.{digits.get(key, 0)}f}" for key in COSTS]
