"""Every rival and every aggregation on the clients' test sets, in one run, on the same uploads, images and seeds."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from common.clients.data import virtual_data, virtual_index
from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.labels import parse_aliases, union_of_names
from common.labels.maps import find_indices, mark_known
from common.storage.atomic import write_json
from common.upload import Upload
from common.vision.metrics import accuracy, count_confusions, predict
from fedlmg_server.baselines import ceiling, teachers_alone
from fedlmg_server.distillation import aggregate, synthetic_set, teachers
from fedlmg_server.distillation.aggregate import AGGREGATIONS, TeacherCache
from fedlmg_server.distillation.parallel import distil_all
from fedlmg_server.distillation.trainer import TrainingSet
from fedlmg_server.workspace import Workspace

TRAINED = (*(f"{images}-{name}" for images in ("prompts-only", "fedlmg") for name in AGGREGATIONS), "ceiling")
"""Methods with a student of their own."""


def test_sets(config: Config, uploads: list[Upload]) -> dict[str, LabeledImages]:
    """Test images of the virtual clients, labels by class name in the union of the uploads' classes.

    Empty when a client has a folder of its own, which the server cannot see.
    """
    return real(config, uploads, "test")


def real(config: Config, uploads: list[Upload], split: str) -> dict[str, LabeledImages]:
    """One split of the virtual clients' images, in the union of the uploads' classes; empty as `test_sets` is."""
    names, aliases = _class_names(uploads), parse_aliases(config.federation.class_aliases)
    sets = {}
    for upload in uploads:
        index = virtual_index(upload.manifest["data"], config)
        if index is None:
            return {}
        data = virtual_data(upload.client, index, config)
        part = getattr(data, split)
        sets[upload.client] = LabeledImages(part.images, find_indices(data.class_names, names, aliases)[part.labels])
    return sets


def _class_names(uploads: list[Upload]) -> list[str]:
    return union_of_names([upload.class_names for upload in uploads])


def without_training(
    uploads: list[Upload], tests: dict[str, LabeledImages], device: torch.device
) -> tuple[dict[str, dict], dict[str, dict[str, float]]]:
    """Rows `local` and `ensemble`, and each client's own model's accuracy on every test set."""
    class_names = _class_names(uploads)
    masks = {upload.client: mark_known(upload.class_names, class_names) for upload in uploads}
    local: dict[str, dict[str, float]] = {}
    ensemble = {}
    for name, test in tests.items():
        read = {upload.client: teachers.probabilities(upload, test.images, class_names, device) for upload in uploads}
        local[name] = teachers_alone.local(read, test.labels)
        ensemble[name] = teachers_alone.ensemble(read, masks, test.labels)
    per_test = {name: _mean(accuracies.values()) for name, accuracies in local.items()}
    matrix = {upload.client: {name: local[name][upload.client] for name in tests} for upload in uploads}
    return {"local": _row(per_test), "ensemble": _row(ensemble)}, matrix


def evaluate(model: torch.nn.Module, config: Config, tests: dict[str, LabeledImages]) -> dict:
    """A methods row: accuracy on each client's test set, and their mean."""
    preprocess = aggregate.preprocessing(config)
    return _row({name: accuracy(predict(model, preprocess, test.images), test.labels) for name, test in tests.items()})


def confusion_of_aggregated(
    config: Config, workspace: Workspace, uploads: list[Upload], tests: dict[str, LabeledImages], device: torch.device
) -> dict:
    """What the aggregated model takes for what, on all test sets, and its accuracy by client and class.

    Returns class_names; counts, (classes, classes), row true class, column predicted; per_client, client -> accuracy
    of each class in [0, 1], None where the client has no test image of it.
    """
    model, _ = aggregate.load(workspace, config, device)
    tables = {
        name: count_confusions(predict(model, aggregate.preprocessing(config), test.images), test.labels)
        for name, test in tests.items()
    }
    per_client = {
        name: [row[index] / sum(row) if sum(row) else None for index, row in enumerate(table.tolist())]
        for name, table in tables.items()
    }
    counts = torch.stack(list(tables.values())).sum(0).tolist()
    return {"class_names": _class_names(uploads), "counts": counts, "per_client": per_client}


def with_training(
    config: Config,
    workspace: Workspace,
    uploads: list[Upload],
    tests: dict[str, LabeledImages],
    device: torch.device,
    on_progress: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """Rows and loss histories of every trained method; finished ones are read from `report/methods`."""
    signature = aggregate.signature(uploads)
    finished = {method: _read(workspace, method, signature) for method in TRAINED}
    aggregated = f"fedlmg-{config.distillation.aggregation}"
    if finished[aggregated] is None:
        model, history = aggregate.load(workspace, config, device)
        finished[aggregated] = _write(workspace, aggregated, signature, evaluate(model, config, tests), history)
    on_progress(sum(result is not None for result in finished.values()))
    missing = [method for method, result in finished.items() if result is None]
    jobs = _training_sets(missing, config, workspace, uploads, device)
    num_classes = len(_class_names(uploads))
    for method, (weights, history) in distil_all(config, uploads, jobs, num_classes, device):
        model = aggregate.student(config, num_classes, uploads, device)
        model.load_state_dict(weights)
        finished[method] = _write(workspace, method, signature, evaluate(model, config, tests), history)
        on_progress(1)
    rows = {method: result["row"] for method, result in finished.items()}
    return rows, {method: result["history"] for method, result in finished.items()}


def _training_sets(
    methods: list[str], config: Config, workspace: Workspace, uploads: list[Upload], device: torch.device
) -> dict[str, TrainingSet]:
    sets = {}
    for images in ("prompts-only", "fedlmg"):
        wanted = [name for name in AGGREGATIONS if f"{images}-{name}" in methods]
        if wanted:
            synthetic = synthetic_set.load(config, workspace, uploads, images)
            cache = TeacherCache(synthetic, uploads, device)
            for name in wanted:
                sets[f"{images}-{name}"] = cache.training_set(name, aggregate.weights(workspace))
    if "ceiling" in methods:
        sets["ceiling"] = ceiling.pooled(list(real(config, uploads, "train").values()))
    return sets


def _path(workspace: Workspace, method: str) -> Path:
    return workspace.report / "methods" / f"{method}.json"


def _read(workspace: Workspace, method: str, signature: list[str]) -> dict | None:
    path = _path(workspace, method)
    if path.exists() and (result := json.loads(path.read_text()))["made_from"] == signature:
        return result
    return None


def _write(workspace: Workspace, method: str, signature: list[str], row: dict, history: list[dict]) -> dict:
    result = {"made_from": signature, "row": row, "history": history}
    write_json(_path(workspace, method), result)
    return result


def _row(per_client: dict[str, float]) -> dict:
    return {"accuracy": _mean(per_client.values()), "per_client": per_client}


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)
