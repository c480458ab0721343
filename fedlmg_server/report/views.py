"""A run's large tables, cut to what a page can show; each says in a sentence what it leaves out."""

from common.html_page import DASH, find_mistakes, format_percent
from common.vision.shares import mean_of_known
from fedlmg_server.report.figures import format_interval
from fedlmg_server.results import ClientResult, Confusion, Model, Results

MAX_COLUMNS = 12
MAX_MODELS = 24
MAX_CLASSES = 30
MAX_MISTAKES = 8
AGGREGATED = "aggregated model"
TITLES: dict[Model, str] = {
    "own": "own",
    "general": "general",
    "no_federation": "no federation",
    "aggregated": "aggregated",
    "personal": "personal",
}
"""A model that clients measure -> its name in tables."""


def clients_shown(results: Results) -> list[str]:
    """The clients that have a column of their own in wide tables."""
    return list(results.clients)[:MAX_COLUMNS]


def mean_personal(results: Results) -> float | None:
    """Accuracy of the clients' personal models on their own test images, mean over the clients that told."""
    return mean_of_known(client.personal_accuracy for client in results.clients.values())


def certainty(results: Results) -> dict | None:
    """How sure the clients' accuracies are, for those that told the number of their test images.

    Returns columns; rows, client -> (test images, a cell of `format_certainty` by column). None where nobody told.
    """
    clients = {name: client for name, client in results.clients.items() if client.num_test_images}
    models = [model for model in TITLES if any(model in client.accuracy_interval for client in clients.values())]
    rows = {
        name: (client.num_test_images, [format_certainty(client, model) for model in models])
        for name, client in clients.items()
    }
    return {"columns": [TITLES[model] for model in models], "rows": rows} if rows else None


def format_certainty(client: ClientResult, model: Model) -> str:
    """An interval and a balanced accuracy in percent, such as `60-83, 71.2` with a dash."""
    if model not in client.accuracy_interval:
        return DASH
    balanced = client.balanced_accuracy.get(model)
    return f"{format_interval(client.accuracy_interval[model])}, {format_percent(balanced)}"


def left_out(shown: int, total: int, what: str) -> str:
    """`12 of 180 clients shown; results.json has them all.`, or nothing where all are shown."""
    return f"{shown} of {total} {what} shown; results.json has them all." if shown < total else ""


def matrix(results: Results) -> dict | None:
    """Accuracy of every model on every client's test images; the aggregated model comes last.

    Returns columns; rows, (model, accuracy by column, mean over all clients); omitted. None where not measured.
    """
    models = results.matrix
    if not models:
        return None
    measured = [name for name in results.clients if any(name in row for row in models.values())]
    columns = measured[:MAX_COLUMNS]
    returned = {name: client.aggregated_accuracy for name, client in results.clients.items()}
    chosen = {name: models[name] for name in list(models)[:MAX_MODELS]} | {AGGREGATED: returned}
    rows = [
        (name, [accuracies.get(column) for column in columns], mean_of_known(accuracies.values()))
        for name, accuracies in chosen.items()
    ]
    omitted = [
        left_out(len(columns), len(measured), "test sets"),
        left_out(len(rows) - 1, len(models), "clients' models"),
    ]
    return {"columns": columns, "rows": rows, "omitted": " ".join(filter(None, omitted))}


def classes(results: Results) -> dict:
    """Accuracy of the aggregated model by class, all test images together and client by client; hardest first if cut.

    Returns columns; rows, (class, test images, accuracy, by column (accuracy, test images or None)); omitted.
    """
    measured = results.confusion or Confusion(class_names=[], counts=[], per_client={})
    columns = [name for name in clients_shown(results) if name in measured.per_client]
    rows = []
    for index, (name, counts) in enumerate(zip(measured.class_names, measured.counts, strict=True)):
        by_client = [
            (measured.per_client[column][index], measured.images[column][index] if column in measured.images else None)
            for column in columns
        ]
        rows.append((name, sum(counts), counts[index] / sum(counts) if sum(counts) else None, by_client))
    total = len(rows)
    if total > MAX_CLASSES:
        rows = sorted(rows, key=lambda row: 2.0 if row[2] is None else row[2])[:MAX_CLASSES]
    omitted = [
        left_out(len(rows), total, "classes, the hardest,"),
        left_out(len(columns), len(measured.per_client), "clients"),
    ]
    return {"columns": columns, "rows": rows, "omitted": " ".join(filter(None, omitted))}


def confusion(results: Results) -> dict | None:
    """Mistakes, the most frequent first; and names and counts of the whole table where it has few classes."""
    measured = results.confusion
    if measured is None:
        return None
    names, counts = measured.class_names, measured.counts
    whole = len(names) <= MAX_CLASSES
    return {
        "names": names if whole else [],
        "counts": counts if whole else [],
        "mistakes": find_mistakes(names, names, counts, list(range(len(names))), MAX_MISTAKES),
        "num_classes": len(names),
    }
