"""The methods that a run measures by itself, on the same uploads, images and seeds: what it returns, or every one."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from common.datasets.labeled_images import LabeledImages
from common.storage.atomic import write_json
from common.upload import Upload
from common.vision.metrics import accuracy, balanced_accuracy, count_confusions, predict
from common.vision.shares import mean_of_known
from fedlmg_server.baselines import centralised, fine_tuned, stain, start
from fedlmg_server.baselines.attack import measure_attack, measure_attack_on_uploads
from fedlmg_server.baselines.outcome import DoesNotApply
from fedlmg_server.baselines.virtual_run import Accuracies, VirtualRun, balanced_of, choose_shared
from fedlmg_server.distillation import teachers
from fedlmg_server.distillation.aggregate import TeacherCache
from fedlmg_server.distillation.parallel import train_students
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.distillation.student import make_student
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.method_names import DISTILLATIONS
from fedlmg_server.results import Confusion, MethodResult
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet

UNTRAINED = ("local-own", "local-all", "ensemble")
"""Methods that use the uploads as they are: on a client's test set its own model, which it has without any federation,
all clients' models on average, and the mean of their probabilities."""
STARTED = ("general", *(f"{kind}{tests}" for kind in fine_tuned.KINDS for tests in ("", "-all")))
"""Methods of a warm-started run: the general model, and models that clients fine-tuned and kept."""
TRAINED = (
    *(f"{images}-{name}" for images in ("prompts-only", "fedlmg") for name in DISTILLATIONS),
    *("centralised", "centralised-with-general"),
)
"""Methods with a student of their own; the last needs general images."""


OnProgress = Callable[[int], None]
"""Hears of each number of models that are done."""


@dataclass(frozen=True)
class Measurements:
    """Accuracies in [0, 1]; all empty where the clients' images are not at hand."""

    rows: dict[str, MethodResult] = field(default_factory=dict)
    histories: dict[str, list[dict]] = field(default_factory=dict)
    """Trained method -> its loss by epoch."""
    matrix: dict[str, dict[str, float]] = field(default_factory=dict)
    """Client -> its own model's accuracy on each client's test images."""
    confusion: Confusion | None = None
    kept: dict[str, fine_tuned.Matrix] = field(default_factory=dict)
    """Kind of the clients' fine-tuned models -> their accuracies on every test set."""


def measure_unanswered(run: VirtualRun, on_progress: OnProgress = lambda count: None) -> Measurements:
    """Rows of the clients' own models, of their ensemble, of the general and of the returned model: what no client's
    evaluation changes."""
    rows, matrix = measure_untrained(run, on_progress=on_progress)
    returned = {returned_method(run): _measure(run, load_model(run))}
    return Measurements(rows | measure_general(run) | returned, {}, matrix, confusion_of_returned_model(run))


def join_what_is_returned(unanswered: Measurements, kept: dict[str, fine_tuned.Matrix]) -> Measurements:
    """`measure_unanswered`, and rows of the models that clients fine-tuned and kept."""
    own = {name: row for name, row in _kept_rows(kept).items() if name in fine_tuned.KINDS}
    alone = {name: row for name, row in unanswered.rows.items() if name != "local-all"}
    return replace(unanswered, rows=alone | own, kept=kept)


def measure_everything(
    run: VirtualRun,
    unanswered: Measurements,
    kept: dict[str, fine_tuned.Matrix],
    on_progress: OnProgress = lambda count: None,
) -> Measurements:
    """Rows of every method; `on_progress` hears of each number of students that are done."""
    trained, histories = measure_trained(run, on_progress)
    return replace(unanswered, rows=unanswered.rows | _kept_rows(kept) | trained, histories=histories, kept=kept)


def measure_general(run: VirtualRun) -> dict[str, MethodResult]:
    """The row `general`, where the run has a general model of the student's architecture; of microscopes' images also
    that of images whose stain is matched to the general ones'."""
    try:
        general = start.general_classifier(run, run.config.distillation.student_architecture)
        row = _row(start.measure_general(run))
        rows = {"general": row.model_copy(update={"attack_success": measure_attack(run, general.network)})}
    except DoesNotApply:
        return {}
    with suppress(DoesNotApply):
        rows["general-stain-normalised"] = _row(stain.measure(run))
    return rows


def trained_methods(run: Run) -> list[str]:
    """Those of `TRAINED` that the run has images for, and what it returns."""
    has_general = run.config.general.warm_start
    fitting = [method for method in TRAINED if has_general or method != "centralised-with-general"]
    return list(dict.fromkeys((*fitting, returned_method(run))))


def returned_method(run: Run) -> str:
    """The method whose student goes back to the clients."""
    return f"fedlmg-{run.config.distillation.aggregation}"


def measure_untrained(
    run: VirtualRun,
    tests: dict[str, LabeledImages] | None = None,
    on_progress: OnProgress = lambda count: None,
) -> tuple[dict[str, MethodResult], dict[str, dict[str, float]]]:
    """The rows `UNTRAINED`, and each client's own model's accuracy on every test set; `tests`: client -> images, the
    clients' own where not given. Of many test sets, all but `MOST_SHARED` are read by their own client's model alone,
    for else the time would grow with the square of their number."""
    every = tests or run.test
    shared = {name: every[name] for name in choose_shared(every)}
    own: dict[str, float] = {}
    own_balanced: dict[str, float] = {}
    matrix: dict[str, dict[str, float]] = {}
    balanced: dict[str, dict[str, float]] = {name: {} for name in shared}
    sums = {name: torch.zeros(len(test), len(run.class_names)) for name, test in shared.items()}

    def measure(upload: Upload, read: teachers.Read) -> None:
        client, matrix[upload.client] = upload.client, {}
        for name, test in every.items():
            if name not in shared and name != client:
                continue
            probabilities = torch.cat(list(read(test.images)))
            measured = accuracy(probabilities, test.labels)
            alike = balanced_accuracy(probabilities.argmax(1), test.labels)
            if name == client:
                own[name], own_balanced[name] = measured, alike
            if name in shared:
                matrix[client][name], balanced[name][client] = measured, alike
                sums[name] += probabilities
        on_progress(1)

    teachers.read_with_all(run, measure)
    attacks = measure_attack_on_uploads(run)
    voters = torch.stack(list(run.known_classes.values())).sum(0)
    ensemble = Accuracies.of({name: (teachers.average(sums[name], voters), shared[name].labels) for name in shared})
    rows = {
        "local-own": _row({name: own[name] for name in every}, attacks[0], own_balanced),
        "local-all": _row(
            {name: mean_of_known(found[name] for found in matrix.values()) for name in shared},
            balanced={name: mean_of_known(found.values()) for name, found in balanced.items()},
        ),
        "ensemble": _row(ensemble, attacks[1]),
    }
    return rows, matrix


def confusion_of_returned_model(run: VirtualRun) -> Confusion:
    """What the returned model takes for what, on all test sets, and its accuracy by client and class."""
    model = load_model(run)
    tables = {
        name: count_confusions(predict(model, run.preprocess, test.images), test.labels)
        for name, test in run.test.items()
    }
    per_client = {
        name: [row[index] / sum(row) if sum(row) else None for index, row in enumerate(table.tolist())]
        for name, table in tables.items()
    }
    counts = torch.stack(list(tables.values())).sum(0).tolist()
    images = {name: table.sum(1).tolist() for name, table in tables.items()}
    return Confusion(class_names=run.class_names, counts=counts, per_client=per_client, images=images)


def measure_trained(
    run: VirtualRun, on_progress: OnProgress = lambda count: None
) -> tuple[dict[str, MethodResult], dict[str, list[dict]]]:
    """Rows and loss histories of the methods `TRAINED`; finished ones are read from `report/methods`."""
    returned = returned_method(run)
    finished = {method: _read(run, method) for method in trained_methods(run)}
    if finished[returned] is None:
        history = run.model_description["history"]
        finished[returned] = _write(run, returned, _measure(run, load_model(run)), history)
    on_progress(sum(result is not None for result in finished.values()))
    missing = [method for method, result in finished.items() if result is None]
    for method, (weights, history) in train_students(run, _training_sets(run, missing)):
        model = make_student(run)
        model.load_state_dict(weights)
        finished[method] = _write(run, method, _measure(run, model), history)
        on_progress(1)
    results = {method: result for method, result in finished.items() if result}
    rows = {method: MethodResult.model_validate(result["row"]) for method, result in results.items()}
    return rows, {method: result["history"] for method, result in results.items()}


def _training_sets(run: VirtualRun, methods: list[str]) -> dict[str, TrainingSet]:
    sets = {}
    for images in ("prompts-only", "fedlmg"):
        wanted = [name for name in DISTILLATIONS if f"{images}-{name}" in methods]
        if wanted:
            cache = TeacherCache(run, read_synthetic_set(run, images))
            for name in wanted:
                sets[f"{images}-{name}"] = cache.training_set(name, run.teacher_weights)
    if "centralised" in methods:
        sets["centralised"] = centralised.pool_images(list(run.train.values()))
    if "centralised-with-general" in methods:
        sets["centralised-with-general"] = centralised.pool_with_general(run)
    return sets


def _path(run: VirtualRun, method: str) -> Path:
    return run.workspace.report / "methods" / f"{method}.json"


def _read(run: VirtualRun, method: str) -> dict | None:
    path = _path(run, method)
    if path.exists() and (result := json.loads(path.read_text(encoding="utf-8")))["made_from"] == run.checksums:
        return result
    return None


def _write(run: VirtualRun, method: str, row: MethodResult, history: list[dict]) -> dict:
    result = {"made_from": run.checksums, "row": row.to_json(), "history": history}
    write_json(_path(run, method), result)
    return result


def _measure(run: VirtualRun, model: torch.nn.Module) -> MethodResult:
    return _row(run.measure(model), measure_attack(run, model))


def _kept_rows(kept: Mapping[str, fine_tuned.Matrix]) -> dict[str, MethodResult]:
    balanced = fine_tuned.balanced_rows(kept)
    return {name: _row(row, balanced=balanced.get(name)) for name, row in fine_tuned.rows(kept).items()}


def _row(
    per_client: Mapping[str, float | None],
    attack_success: float | None = None,
    balanced: Mapping[str, float | None] | None = None,
) -> MethodResult:
    """balanced: client -> balanced accuracy, if `per_client` does not know it."""
    balanced = balanced_of(per_client) if balanced is None else balanced
    return MethodResult(
        accuracy=mean_of_known(per_client.values()),
        per_client=dict(per_client),
        balanced_accuracy=mean_of_known(balanced.values()),
        balanced_per_client=dict(balanced),
        attack_success=attack_success,
    )
