"""The model's card: what it is, how it was measured, how to use it. Markdown, beside the model."""

from common.html_page import format_percent
from fedlmg_server.monitor.text import make_printable
from fedlmg_server.report.page import LIMITS, headline
from fedlmg_server.report.views import left_out
from fedlmg_server.results import Results, format_points

MAX_CLASSES, MAX_CLIENTS = 50, 50


def render(results: Results, class_names: list[str]) -> str:
    """`MODEL_CARD.md` from the results of a run; texts of clients are escaped for Markdown."""
    model, clients = results.aggregated, results.clients
    names = ", ".join(map(_escape, class_names[:MAX_CLASSES]))
    rows = [
        (
            name,
            client.num_examples,
            format_percent(client.own_accuracy),
            format_percent(client.aggregated_accuracy),
            format_points(client.aggregated_accuracy, client.own_accuracy),
        )
        for name, client in list(clients.items())[:MAX_CLIENTS]
    ]
    methods = [(name, format_percent(method.accuracy)) for name, method in results.methods.items()]
    parts = [
        "# Model card",
        _escape(headline(results)),
        f"- Architecture: `{model.architecture}`, aggregation: {model.aggregation}, seed {results.seed}.",
        f"- Classes ({len(class_names)}): {names}{' ...' if len(class_names) > MAX_CLASSES else ''}",
        f"- Trained on {results.synthesis.num_images} synthetic images; it has seen no client's image.",
        "## Accuracy in percent, on each client's own test images",
        _table(("client", "training images", "own model", "this model", "points"), rows),
        left_out(len(rows), len(clients), "clients"),
        *(
            ["## Methods of the same run, mean accuracy in percent", _table(("method", "mean"), methods)]
            * bool(methods)
        ),
        "## Use",
        "```python\nfrom common.models.predictor import load_classifier\n\n"
        'for path, label, confidence in load_classifier("model").predict(["one.png"]):\n'
        "    print(path, label, confidence)\n```",
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines)


def _escape(text: object) -> str:
    return "".join(f"\\{character}" if character in "|<>`*_[]&\\" else character for character in make_printable(text))
