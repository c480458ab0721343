"""A client's own page: its own model, the model that came back, and nothing of anybody else."""

import json
from pathlib import Path

from common.html_page import environment, mistakes, percent
from common.vision.metrics import curve

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
<p class="soft">Measured here, on {{ num_test }} test images of this client, which no other machine has seen.</p>
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

<h2>What it takes for what</h2>
{% if wrong %}
<p>Most often: {% for real, said, share in wrong %}
{{ real }} for {{ said }} ({{ share | percent }} %){{ ", " if not loop.last else "." }}{% endfor %}</p>
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
<p>The weights of your {{ architecture }}{{ "" if private else ", moments of its features" }}, and a manifest: class
names and counts, accuracies {{ "" if private else "and losses " }}by epoch. No image.</p>
</main>
</body>
</html>
"""


class PageError(ValueError):
    """A cache folder that holds no evaluation; the message is one sentence for the user."""


def render(cache: Path) -> str:
    """The page as HTML, from what the client keeps in its cache path.

    Raises
    ------
    PageError: the client has not measured a returned model, or its own upload is gone.
    """
    evaluation = _read(cache / "aggregated" / "evaluation.json", "no returned model was measured there yet")
    model = _read(cache / "aggregated" / "model.json", "the returned model is not there")
    uploads = sorted(cache.glob("*/upload/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    if not uploads:
        raise PageError(f"{cache} holds no upload of this client: name its cache path")
    manifest = _read(uploads[-1], "its upload is not whole")
    training, rows, counts = manifest["training"], evaluation["class_names"], evaluation["confusion"]
    classes = [
        (name, sum(line), (line[column] if column >= 0 else 0) / sum(line) if sum(line) else None)
        for name, line, column in zip(rows, counts, evaluation["correct"], strict=True)
    ]
    validation = dict(curve(training["history"], "validation_accuracy"))
    returned = evaluation["accuracy"] if any(map(sum, counts)) else None
    few = max(len(rows), len(model["class_names"])) <= MAX_CLASSES
    return (
        environment({"page": PAGE})
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
            wrong=mistakes(rows, model["class_names"], counts, evaluation["correct"], MAX_MISTAKES),
            rows=rows,
            columns=model["class_names"],
            counts=counts if few else [],
            private=bool(manifest.get("privacy")),
            epochs=[(epoch, loss, validation.get(epoch)) for epoch, loss in curve(training["history"], "train_loss")],
        )
    )


def _headline(own: float | None, returned: float | None) -> str:
    if own is None or returned is None:
        return "There are no test images here to measure the returned model on."
    more = f"{100 * abs(returned - own):.1f} points {'more' if returned >= own else 'fewer'}"
    return f"The returned model is right on {percent(returned)} % of your test images, {more} than your own model."


def _read(path: Path, problem: str) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise PageError(f"{path} cannot be read: {problem}") from None
