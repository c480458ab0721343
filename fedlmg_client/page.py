"""A client's own report page: its model and the returned model, and nothing about other clients."""

import json
from pathlib import Path

from common import manifest
from common.html_page import find_mistakes, format_percent, load_template
from common.manifest import ManifestError

MAX_CLASSES = 30
MAX_MISTAKES = 8

TEMPLATE = Path("fedlmg_client/pages/client.html.j2")


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
    try:
        upload = manifest.read(uploads[-1].parent)
    except (OSError, ManifestError) as error:
        raise PageError(f"{uploads[-1]} cannot be read: {error}") from None
    training, rows, counts = upload.training, evaluation["class_names"], evaluation["confusion"]
    classes = [
        (name, sum(line), (line[column] if column >= 0 else 0) / sum(line) if sum(line) else None)
        for name, line, column in zip(rows, counts, evaluation["correct"], strict=True)
    ]
    validation: dict[float, float | None] = {entry.epoch: entry.validation_accuracy for entry in training.history}
    returned = evaluation["accuracy"] if any(map(sum, counts)) else None
    few = max(len(rows), len(model["class_names"])) <= MAX_CLASSES
    return load_template(TEMPLATE).render(
        name=evaluation["client"],
        headline=_headline(training.test_accuracy, returned),
        own=training.test_accuracy,
        returned=returned,
        num_train=training.num_examples,
        num_test=sum(map(sum, counts)),
        architecture=upload.architecture,
        classes=classes if few else sorted(classes, key=lambda each: (each[2] is None, each[2]))[:MAX_CLASSES],
        omitted="" if few else f"The {MAX_CLASSES} hardest of {len(classes)} classes.",
        wrong=find_mistakes(rows, model["class_names"], counts, evaluation["correct"], MAX_MISTAKES),
        rows=rows,
        columns=model["class_names"],
        counts=counts if few else [],
        private=upload.privacy is not None,
        epochs=[(epoch, loss, validation.get(epoch)) for epoch, loss in training.losses()],
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
