"""A client's own report page: what the round was worth to it and how its models do, and nothing about other clients."""

from pathlib import Path
from typing import Any

from common import manifest
from common.html_page import find_mistakes, format_percent, load_template
from common.manifest import Manifest, ManifestError
from common.worth import say_worth
from fedlmg_client import measured
from fedlmg_client.folders import ALONE, GENERAL, PERSONAL, RETURNED, find_model, find_upload
from fedlmg_client.measured import REMEDY, Measured
from fedlmg_client.models import read_description
from fedlmg_client.personalise import say_choice

MAX_CLASSES = 30
MAX_MISTAKES = 8

TEMPLATE = Path("fedlmg_client/pages/client.html.j2")
NAMES = {"personal": "your personal model", "returned": "the returned model", "own": "your own model"}
"""Word of the option `--model` -> how the page calls that model."""

MEASURED = {"returned": RETURNED, "personal": PERSONAL, "general": GENERAL, "no-federation": ALONE}
TILES = {
    "own": "your own model",
    "general": "the server's general model",
    "no-federation": "that, trained by you alone",
    "returned": "the returned model",
    "personal": "your personal model",
}
NOT_MEASURED = "This client has no test images, so the returned model was not measured."


class PageError(ValueError):
    """The cache folder lacks what the page shows; the message is one sentence for the user."""


def render(cache: Path, word: str = "") -> str:
    """Render the page as HTML from the client's cache folder.

    word: the model that is shown class by class, one of `NAMES`; by default the personal one, or else the returned one.

    Raises
    ------
    PageError: the client has not measured a returned model yet, its own upload is missing, it lacks that model, or one
        of the files is damaged.
    """
    returned = _read_measured(cache / RETURNED, "this client has not measured a returned model yet")
    if not (folder := find_upload(cache)):
        raise PageError(f"{cache} holds no upload of this client: name the client's cache folder")
    try:
        upload = manifest.read(folder)
    except (OSError, ManifestError) as error:
        raise PageError(f"{folder / 'manifest.json'} cannot be read: {error}: {REMEDY}") from None
    training = upload.training
    found = {name: cache / each for name, each in MEASURED.items() if (cache / each / "model.json").is_file()}
    accuracies = {name: _accuracy(each) for name, each in found.items()}
    accuracies["own"] = _accuracy(folder) if (folder / measured.FILE).is_file() else training.test_accuracy
    word = word or ("personal" if "personal" in found else "returned")
    shown, columns = _read_shown(cache, word, upload)
    rows, counts, correct = shown.class_names, shown.confusion, shown.correct
    classes = [
        (name, sum(line), (line[column] if column >= 0 else 0) / sum(line) if sum(line) else None)
        for name, line, column in zip(rows, counts, correct, strict=True)
    ]
    validation: dict[float, float | None] = {entry.epoch: entry.validation_accuracy for entry in training.history}
    few = max(len(rows), len(columns)) <= MAX_CLASSES
    return load_template(TEMPLATE).render(
        name=returned.client,
        headline=_headline(accuracies) if returned.num_images else _say_unmeasured(returned),
        tiles=[(accuracies[name], title) for name, title in TILES.items() if name in accuracies],
        choice=_say_choice(found.get("personal")),
        shown=NAMES[word],
        num_train=training.num_examples,
        num_test=shown.num_images,
        architecture=upload.architecture,
        copy=upload.student_copy and upload.student_copy.architecture,
        classes=classes if few else sorted(classes, key=lambda each: (each[2] is None, each[2]))[:MAX_CLASSES],
        omitted="" if few else f"The {MAX_CLASSES} hardest of {len(classes)} classes.",
        wrong=find_mistakes(rows, columns, counts, correct, MAX_MISTAKES),
        rows=rows,
        columns=columns,
        counts=counts if few else [],
        private=upload.privacy is not None,
        epochs=[(epoch, loss, validation.get(epoch)) for epoch, loss in training.losses()],
    )


def _headline(accuracies: dict[str, float | None]) -> str:
    """What the round was worth; without a personal model, the returned one against the client's own."""
    own, returned = accuracies["own"], accuracies.get("returned")
    if worth := say_worth(accuracies.get("no-federation", own), accuracies.get("personal")):
        return worth
    if returned is None:
        return NOT_MEASURED
    said = f"The returned model has an accuracy of {format_percent(returned)} % on your test images"
    if own is None:
        return f"{said}."
    return (
        f"{said}, {100 * abs(returned - own):.1f} points {'more' if returned >= own else 'less'} than your own model."
    )


def _say_unmeasured(returned: Measured) -> str:
    if not returned.unmeasured:
        return NOT_MEASURED
    return (
        f"The returned model was not measured: {returned.unmeasured}. To measure it, run `fedlmg-client personalise`."
    )


def _say_choice(personal: Path | None) -> str:
    """What became the personal model, in a sentence; empty without one."""
    if not personal:
        return ""
    try:
        return f"Your personal model: {say_choice(_describe(personal)['recipe'])}."
    except (LookupError, TypeError, ValueError) as error:
        raise PageError(f"{personal / 'model.json'} does not say how it was made ({error}): {REMEDY}") from None


def _read_shown(cache: Path, word: str, upload: Manifest) -> tuple[Measured, list[str]]:
    """What was measured of the model that is shown, and the model's classes."""
    if not (folder := find_model(cache, word)):
        raise PageError(f"{cache} does not hold {NAMES[word]}: join again, or leave out --model")
    columns = upload.class_names if word == "own" else _describe(folder).get("class_names")
    shown = _read_measured(folder, f"{NAMES[word]} has not been measured yet")
    if not isinstance(columns, list) or any(len(line) != len(columns) for line in shown.confusion):
        raise PageError(f"{folder / measured.FILE} does not fit the classes of its model: {REMEDY}")
    return shown, columns


def _accuracy(folder: Path) -> float | None:
    """None if the model was measured on no image."""
    found = _read_measured(folder, "the model has not been measured yet")
    return found.accuracy if found.num_images else None


def _describe(folder: Path) -> dict[str, Any]:
    try:
        return read_description(folder)
    except (OSError, ValueError) as error:
        raise PageError(error) from None


def _read_measured(folder: Path, missing: str) -> Measured:
    try:
        return Measured.read(folder)
    except FileNotFoundError:
        raise PageError(f"{folder / measured.FILE} cannot be read: {missing}") from None
    except (OSError, ValueError) as error:
        raise PageError(error) from None
