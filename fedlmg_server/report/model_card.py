"""The model's card: what it is, how it was measured, how to use it. Markdown, beside the model.

It goes where the model goes, so it counts the clients and names none of them.
"""

from common.html_page import DASH, format_percent
from fedlmg_server.method_names import title_method
from fedlmg_server.monitor.text import make_printable
from fedlmg_server.report import worth
from fedlmg_server.report.figures import format_interval, format_points
from fedlmg_server.report.page import LIMITS, headline
from fedlmg_server.report.views import left_out
from fedlmg_server.results import ClientResult, Results

MAX_CLASSES, MAX_CLIENTS = 50, 50
SURE = ("test images", "this model, 95 % interval", "this model, balanced")
"""The last headers: how many images it was measured on, how sure its accuracy is, and what it is where every class
counts alike."""
WARM = ("general model", "no federation", "personal model", "gain, points")
"""Further headers in a warm-started run; the gain is of the personal model against no federation."""
GENERAL_IMAGES = {
    "public": "labelled public images",
    "unguided": "images that the diffusion model made from the classes' names alone",
}


def render(results: Results, class_names: list[str]) -> str:
    """`MODEL_CARD.md` from the results of a run; names of classes are escaped for Markdown."""
    model, clients = results.aggregated, results.clients
    names = ", ".join(map(_escape, class_names[:MAX_CLASSES]))
    head = (
        "client",
        "training images",
        "own model",
        "this model",
        "points",
        *(WARM if results.warm_started else ()),
        *SURE,
    )
    rows = [
        (
            f"client {number}",
            client.num_examples,
            format_percent(client.own_accuracy),
            format_percent(client.aggregated_accuracy),
            format_points(client.aggregated_accuracy, client.own_accuracy),
            *(_figures_of_a_start(client) if results.warm_started else ()),
            client.num_test_images or DASH,
            format_interval(client.accuracy_interval.get("aggregated")),
            format_percent(client.balanced_accuracy.get("aggregated")),
        )
        for number, client in enumerate(list(clients.values())[:MAX_CLIENTS], 1)
    ]
    methods = [(title_method(name), format_percent(method.accuracy)) for name, method in results.methods.items()]
    parts = [
        "# Model card",
        _escape(headline(results)),
        f"- Architecture: `{model.architecture}`, aggregation: {model.aggregation}, seed {results.seed}.",
        f"- Classes ({len(class_names)}): {names}{' ...' if len(class_names) > MAX_CLASSES else ''}",
        f"- {_sources(results)}",
        "## Accuracy in percent, on each client's own test images",
        _table(head, rows),
        left_out(len(rows), len(clients), "clients"),
        _worth(results),
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


def _figures_of_a_start(client: ClientResult) -> tuple[str, ...]:
    """The cells below `WARM`."""
    return (
        format_percent(client.general_accuracy),
        format_percent(client.no_federation_accuracy),
        format_percent(client.personal_accuracy),
        format_points(client.personal_accuracy, client.no_federation_accuracy),
    )


def _worth(results: Results) -> str:
    """A line for each client that told what the round was worth to it."""
    told = worth.of_clients(results)
    numbered = list(enumerate(results.clients, 1))[:MAX_CLIENTS]
    return "\n".join(f"- client {number}: {told[name]}" for number, name in numbered if name in told)


def _sources(results: Results) -> str:
    """Where the model's knowledge comes from, in a sentence or two."""
    synthetic = f"{results.synthesis.num_images} synthetic images"
    seen = "it has seen no client's image"
    if results.general is None:
        return f"Trained on {synthetic}; {seen}."
    general = f"{results.general.num_images} {GENERAL_IMAGES[results.general.source]}"
    return (
        f"Its knowledge comes from {general}, from what {len(results.clients)} clients uploaded, and from {synthetic} "
        f"that their models guided; {seen}."
    )


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines)


def _escape(text: object) -> str:
    return "".join(f"\\{character}" if character in "|<>`*_[]&\\" else character for character in make_printable(text))
