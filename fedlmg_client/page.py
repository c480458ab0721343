"""A client's own report page: its model and the returned model, and nothing about other clients."""

import json
from pathlib import Path

from common.html_page import find_mistakes, format_percent, make_environment
from common.vision.metrics import read_curve

MAX_CLASSES = 30
MAX_MISTAKES = 8

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FedLMG: {{ name }}</title>
<link rel="icon" href="data:,">
<style>{{ style }}</style>
</head>
<body>
{% import "macros" as tables %}
<header>
<h1>FedLMG, seen by {{ name }}</h1>
<p class="headline">{{ headline }}</p>
<p class="soft">Measured on this machine, with {{ num_test }} test images of this client, which never left it.</p>
<div class="tiles">
<div class="tile"><b>{{ own | percent }} %</b><span class="soft">your own model</span></div>
<div class="tile"><b>{{ returned | percent }} %</b><span class="soft">the returned model</span></div>
<div class="tile"><b>{{ num_train }}</b><span class="soft">your training images</span></div>
</div>
</header>
<main>
<h2>The returned model, class by class</h2>
<p class="soft">Accuracy in percent on your test images. {{ omitted }}</p>
{% call tables.scroll("Accuracy by class") %}<table>
<thead><tr><th scope="col">class</th><th scope="col">test images</th><th scope="col" class="text">accuracy</th></tr>
</thead>
<tbody>
{% for name, count, accuracy in classes %}
<tr><th scope="row">{{ name }}</th><td>{{ count }}</td>{{ tables.bar(accuracy) }}</tr>
{% endfor %}
</tbody></table>{% endcall %}

<h2>Which classes the returned model confuses</h2>
{% if wrong %}
<p>Most frequent errors, true class → predicted class (share of the true class): {% for real, said, share in wrong %}
{{ real }} → {{ said }} ({{ share | percent }} %){{ ", " if not loop.last else "." }}{% endfor %}</p>
{% endif %}
{% if counts %}
{{ tables.confusion(rows, columns, counts) }}
{% endif %}

{% if epochs %}
<h2>Training your own model</h2>
{% call tables.scroll("Loss and validation accuracy by epoch") %}<table>
<thead><tr><th scope="col">epoch</th><th scope="col">loss</th><th scope="col" class="text">validation accuracy, %</th>
</tr></thead>
<tbody>
{% for epoch, loss, accuracy in epochs %}
<tr><th scope="row">{{ epoch }}</th><td>{{ "%.3f" | format(loss) }}</td>{{ tables.bar(accuracy) }}</tr>
{% endfor %}
</tbody></table>{% endcall %}
{% endif %}

<h2>What left this machine</h2>
<p>The weights of your {{ architecture }}{{ "" if private else ", feature statistics" }}, and a manifest with class
names, image counts and, for each epoch, accuracies{{ "" if private else " and losses" }}. No image left it.</p>
</main>
</body>
</html>
"""


class PageError(ValueError):
    """The cache folder lacks what the page shows; the message is one sentence for the user."""


def render(cache: Path) -> str:
    """Render the page as HTML from the client's cache folder.

    Raises
    ------
    PageError: the client has not measured a returned model yet, or its own upload is missing.
    """
    evaluation = _read_json(
        cache / "aggregated" / "evaluation.json", "this client has not measured a returned model yet"
    )
    model = _read_json(cache / "aggregated" / "model.json", "there is no returned model")
    uploads = sorted(cache.glob("*/upload/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    if not uploads:
        raise PageError(f"{cache} holds no upload of this client: name the client's cache folder")
    manifest = _read_json(uploads[-1], "the client's upload is incomplete")
    training, rows, counts = manifest["training"], evaluation["class_names"], evaluation["confusion"]
    classes = [
        (name, sum(line), (line[column] if column >= 0 else 0) / sum(line) if sum(line) else None)
        for name, line, column in zip(rows, counts, evaluation["correct"], strict=True)
    ]
    validation = dict(read_curve(training["history"], "validation_accuracy"))
    returned = evaluation["accuracy"] if any(map(sum, counts)) else None
    few = max(len(rows), len(model["class_names"])) <= MAX_CLASSES
    return (
        make_environment({"page": PAGE})
        .get_template("page")
        .render(
            name=evaluation["client"],
            headline=_headline(training["test_accuracy"], returned),
            own=training["test_accuracy"],
            returned=returned,
            num_train=training["num_examples"],
            num_test=sum(map(sum, counts)),
            architecture=manifest["architecture"],
            classes=classes if few else sorted(classes, key=lambda each: (each[2] is None, each[2]))[:MAX_CLASSES],
            omitted="" if few else f"The {MAX_CLASSES} hardest of {len(classes)} classes.",
            wrong=find_mistakes(rows, model["class_names"], counts, evaluation["correct"], MAX_MISTAKES),
            rows=rows,
            columns=model["class_names"],
            counts=counts if few else [],
            private=bool(manifest.get("privacy")),
            epochs=[
                (epoch, loss, validation.get(epoch)) for epoch, loss in read_curve(training["history"], "train_loss")
            ],
        )
    )


def _headline(own: float | None, returned: float | None) -> str:
    if own is None or returned is None:
        return "This client has no test images, so the returned model was not measured."
    more = f"{100 * abs(returned - own):.1f} points {'more' if returned >= own else 'less'}"
    own_images = f"an accuracy of {format_percent(returned)} % on your test images"
    return f"The returned model has {own_images}, {more} than your own model."


def _read_json(path: Path, problem: str) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise PageError(f"{path} cannot be read: {problem}") from None
