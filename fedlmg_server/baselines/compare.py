"""Every rival and every aggregation on the clients' test sets, in one run, on the same uploads, images and seeds."""

import json
from collections.abc import Callable

import torch

from common.checkpoint import write_json
from common.config import Config
from common.datasets import digits
from common.metrics import accuracy, predict
from common.upload import Upload
from common.workspace import Workspace
from fedlmg_server.baselines import ceiling, teachers_alone
from fedlmg_server.distillation import aggregate, synthetic_set, teachers
from fedlmg_server.distillation.aggregate import AGGREGATIONS, TeacherCache
from fedlmg_server.distillation.trainer import TrainingSet


def test_sets(uploads: list[Upload]) -> dict[str, digits.LabeledImages]:
    """Test images of the virtual clients; empty when a client has a folder of its own, which the server cannot see."""
    domains = {upload.client: upload.manifest["data"].removeprefix("digits/") for upload in uploads}
    if not all(upload.manifest["data"].startswith("digits/") for upload in uploads):
        return {}
    return {client: digits.load(domain)["test"] for client, domain in domains.items()}


def without_training(uploads: list[Upload], device: torch.device) -> tuple[dict[str, dict], dict[str, float]]:
    """Rows `local` and `ensemble`, and each client's own model's mean accuracy over all test sets."""
    tests = test_sets(uploads)
    local: dict[str, dict[str, float]] = {}
    ensemble = {}
    for name, test in tests.items():
        read = {
            upload.client: teachers.probabilities(upload, test.images, list(digits.CLASS_NAMES), device)
            for upload in uploads
        }
        local[name] = teachers_alone.local(read, test.labels)
        ensemble[name] = teachers_alone.ensemble(read, test.labels)
    per_test = {name: _mean(accuracies.values()) for name, accuracies in local.items()}
    own = {upload.client: _mean(local[name][upload.client] for name in tests) for upload in uploads}
    return {"local": _row(per_test), "ensemble": _row(ensemble)}, own


def evaluate(model: torch.nn.Module, config: Config, uploads: list[Upload]) -> dict:
    """A methods row: accuracy on each client's test set, and their mean."""
    preprocess = aggregate.preprocessing(config)
    return _row(
        {
            name: accuracy(predict(model, preprocess, test.images), test.labels)
            for name, test in test_sets(uploads).items()
        }
    )


def with_training(
    config: Config,
    workspace: Workspace,
    uploads: list[Upload],
    device: torch.device,
    on_progress: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """Rows and loss histories of every trained method; finished ones are read from `report/methods`."""
    rows, histories = {}, {}

    def finish(method: str, data: TrainingSet) -> None:
        rows[method], histories[method] = _train_and_evaluate(method, data, config, workspace, uploads, device)
        on_progress(1)

    for method in ("prompts-only", "fedlmg"):
        synthetic = synthetic_set.load(config, workspace, uploads, method)
        cache = TeacherCache(synthetic, uploads, device)
        for name in AGGREGATIONS:
            finish(f"{method}-{name}", TrainingSet(synthetic.images, synthetic.labels, cache.targets(name)))
    finish("ceiling", ceiling.pooled([upload.manifest["data"].removeprefix("digits/") for upload in uploads]))
    return rows, histories


def _train_and_evaluate(
    method: str,
    data: TrainingSet,
    config: Config,
    workspace: Workspace,
    uploads: list[Upload],
    device: torch.device,
) -> tuple[dict, list[dict]]:
    path = workspace.report / "methods" / f"{method}.json"
    signature = aggregate.signature(uploads)
    if path.exists() and (finished := json.loads(path.read_text()))["made_from"] == signature:
        return finished["row"], finished["history"]
    if method == f"fedlmg-{config.distillation.aggregation}":
        model, history = aggregate.load(workspace, device)
    else:
        model, history = aggregate.distil(config, uploads, data, len(digits.CLASS_NAMES), device)
    row = evaluate(model, config, uploads)
    write_json(path, {"made_from": signature, "row": row, "history": history})
    return row, history


def _row(per_client: dict[str, float]) -> dict:
    return {"accuracy": _mean(per_client.values()), "per_client": per_client}


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)
