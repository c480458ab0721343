"""The returned model on the client: it is kept, made personal, and measured beside the client's other models."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common import labels
from common.clients.data import ClientData, load_client_data
from common.clients.node_config import NodeConfig, cache_path, client_name, privacy_of
from common.config import Config
from common.evaluation import Evaluation, Kind
from common.start import Start
from common.storage.atomic import write_json
from common.upload import Upload
from fedlmg_client import faults, models, personalise
from fedlmg_client.folders import ALONE, GENERAL, PERSONAL, RETURNED, find_upload
from fedlmg_client.models import Model, evaluate
from fedlmg_client.status import ModelStored, Trained, append_event

SETTINGS = "settings.json"
"""Beside the returned model: the run's settings, with which it can be made personal again."""

BEYOND_BUDGET: tuple[Kind, ...] = ("personal", "no_federation")
"""Models that are fine-tuned without a privacy budget: a client that trains with one tells nothing of them."""


def take(
    node_config: NodeConfig, config: Config, arrays: dict[str, torch.Tensor], description: dict, start: Start | None
) -> Evaluation:
    """Keep the returned model and what came with it, make it personal, and measure all models.

    description: its architecture, class_names and preprocessing. start: the general model of its architecture and
    images to replay, if the server sent them.

    Raises
    ------
    ValueError: the model cannot be built from its description, or the data cannot be read.
    """
    cache, model = cache_path(node_config, config), Model.described(description, arrays)
    try:
        data = load_client_data(node_config, config)
    except (OSError, ValueError):
        # The server may not send it again. It can be made personal when the images are back.
        name = client_name(node_config, config)
        _keep(model, start, cache, name, config, lambda each: models.describe_unmeasured(name))
        raise
    data = faults.spoil_data(faults.find_fault(data, config), data, config.seed)
    _keep(model, start, cache, data.name, config, lambda each: _measure(each, data, config))
    evaluation = compare(cache, data, config)
    append_event(cache, ModelStored(accuracy=evaluation.returned, personal=evaluation.personal))
    if privacy_of(node_config, config).dp_epsilon:
        untold: dict[str, None] = dict.fromkeys(BEYOND_BUDGET)
        balanced = {kind: value for kind, value in evaluation.balanced.items() if kind not in untold}
        return evaluation.model_copy(update={**untold, "balanced": balanced})
    return evaluation


def _keep(
    model: Model,
    start: Start | None,
    cache: Path,
    client: str,
    config: Config,
    measure: Callable[[Model], dict[str, Any]],
) -> None:
    """Keep the returned model, and of its architecture the general model with the images to replay; without these, none
    of an earlier round."""
    model.save(cache / RETURNED, measure(model))
    write_json(cache / RETURNED / SETTINGS, config.settings())
    try:
        if start and (arrays := start.models.get(model.architecture)):
            start = replace(start, models={model.architecture: arrays})
            models.save_general(start, cache / GENERAL, measure(Model.of_start(start)))
            return
    except ValueError as error:
        print(f"{client}: the server's general model is left out: {error}", flush=True)
    for folder in (GENERAL, ALONE):
        (cache / folder / "model.json").unlink(missing_ok=True)


def compare(cache: Path, data: ClientData, config: Config, again: bool = False) -> Evaluation:
    """Make what the cache holds personal, and measure every model on the client's test images.

    Models that were made from the same parts before are kept, unless they are to be made `again`. What cannot be made
    is told, and is missing from the result.

    Raises
    ------
    OSError, ValueError: the cache holds no returned model.
    OSError, ValueError, RuntimeError: the personal model cannot be made `again`; then the former one is kept.
    """
    returned, start = Model.load(cache / RETURNED), models.load_general(cache / GENERAL)
    measured = {"returned": _measure(returned, data, config)}
    own, found = _measure_own(cache, data, config)
    if found:
        measured["own"] = found
    tasks = {"personal": (PERSONAL, returned, "your personal model")}
    if start:
        general = Model.of_start(start)
        measured["general"] = _measure(general, data, config)
        tasks["no_federation"] = (ALONE, general, "a model without the federation")
    for key, (folder, base, name) in tasks.items():
        try:
            # Without the federation a client has the general model alone: its upload is the round's.
            candidate = own if key == "personal" else None
            measured[key] = _personalise(base, candidate, data, start, config, cache / folder, name, again)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the machine runs out of memory.
            if again and key == "personal":
                raise
            (cache / folder / "model.json").unlink(missing_ok=True)
            print(f"{data.name}: {name} cannot be made: {error}", flush=True)
    if not len(data.test):
        return Evaluation(num_examples=0)
    accuracies = {name: float(found["accuracy"]) for name, found in measured.items()}
    balanced = {name: float(found["balanced_accuracy"]) for name, found in measured.items()}
    return Evaluation.model_validate({"num_examples": len(data.test), "balanced": balanced} | accuracies)


def compare_again(cache: Path, node_config: NodeConfig) -> Evaluation:
    """Make the models in a cache personal again, with the settings of the last round and the images that the node
    config names.

    Raises
    ------
    OSError, ValueError: the cache holds no returned model, or the images cannot be read.
    """
    try:
        settings = json.loads((cache / RETURNED / SETTINGS).read_text(encoding="utf-8"))
        name = json.loads((cache / RETURNED / "evaluation.json").read_text(encoding="utf-8"))["client"]
    except FileNotFoundError:
        raise ValueError(
            "it holds no returned model: wait until the model has arrived, or name another cache"
        ) from None
    config = Config.from_run_config(settings)
    data = load_client_data({"name": name, "cache-path": str(cache), **node_config}, config)
    return compare(cache, data, config, again=True)


def _personalise(
    base: Model,
    own: Model | None,
    data: ClientData,
    start: Start | None,
    config: Config,
    folder: Path,
    name: str,
    again: bool,
) -> dict[str, Any]:
    """Make one model, keep it in `folder`, and return what `models.evaluate` measures of it."""
    digest = personalise.digest(base, own, data, start, config)
    if (folder / "model.json").is_file() and not again:
        if models.read_description(folder)["recipe"]["digest"] == digest:
            return _measure(Model.load(folder), data, config)
        (folder / "model.json").unlink()
    checkpoint = folder / f"{digest}.checkpoint.safetensors"
    report = partial(_report, data.name, name, folder.parent)
    made = personalise.personalise(base, own, data, start, config, checkpoint, report)
    print(f"{data.name}: {name}: {made.describe()}", flush=True)
    measured = _measure(made.model, data, config)
    made.model.save(folder, measured, recipe=made.recipe() | {"digest": digest})
    for file in folder.glob("*.checkpoint.safetensors"):
        file.unlink()
    return measured


def _report(client: str, name: str, cache: Path, epoch: int, epochs: int, seconds_left: float) -> None:
    print(f"{client}: {name}, epoch {epoch}/{epochs}, {seconds_left:.0f} s left", flush=True)
    append_event(cache, Trained(name=name, epoch=epoch, epochs=epochs, seconds_left=round(seconds_left, 1)))


def _measure(model: Model, data: ClientData, config: Config) -> dict:
    builders = config.builders | {model.architecture}
    return evaluate(model, data, builders, labels.parse_aliases(config.clients.class_aliases))


def _measure_own(cache: Path, data: ClientData, config: Config) -> tuple[Model | None, dict[str, Any] | None]:
    """The classifier that was uploaded last and what is measured of it, which is kept beside it; None if it cannot be
    read or built."""
    if not (folder := find_upload(cache)):
        return None, None
    try:
        own = Model.of_upload(Upload.load(folder))
        found = _measure(own, data, config)
        write_json(folder / "evaluation.json", found)
        return own, found
    except (OSError, ValueError) as error:
        print(f"{data.name}: your own upload is left out, for it cannot be used: {error}", flush=True)
        return None, None
