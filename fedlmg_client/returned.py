"""The returned model on the client: it is kept, made personal, and measured beside the client's other models."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from common import labels
from common.clients.data import ClientData, load_client_data
from common.clients.node_config import NodeConfig, cache_path, client_name, privacy_of
from common.config import Config
from common.evaluation import Evaluation, Kind
from common.start import Start
from common.storage.atomic import write_json
from common.storage.json_files import read_object
from common.telling import first_line
from common.upload import Upload
from fedlmg_client import faults, models, personalise
from fedlmg_client.folders import ALONE, GENERAL, PERSONAL, RETURNED, find_upload
from fedlmg_client.measured import Measured
from fedlmg_client.models import TROUBLE, Model, evaluate
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
    ValueError: the model cannot be built from its description, and is not kept.
    OSError, ValueError, RuntimeError, MemoryError: the model is kept, but the data cannot be read, or the memory runs
        out.
    """
    cache, model = cache_path(node_config, config), Model.described(description, arrays)
    name = client_name(node_config, config)
    # The server may not send it again. Whatever fails from here on can be made up for by `compare_again`.
    _keep(model, start, cache, name, config)
    try:
        data = load_client_data(node_config, config)
        data = faults.spoil_data(faults.find_fault(data, config), data, config.seed)
        evaluation = compare(cache, data, config)
    except TROUBLE as error:
        if Measured.read(cache / RETURNED).unmeasured:
            Measured.nothing(name, first_line(error)).write(cache / RETURNED)
        raise
    append_event(cache, ModelStored(accuracy=evaluation.returned, personal=evaluation.personal))
    if privacy_of(node_config, config).dp_epsilon:
        untold: dict[str, None] = dict.fromkeys(BEYOND_BUDGET)
        balanced = {kind: value for kind, value in evaluation.balanced.items() if kind not in untold}
        return evaluation.model_copy(update={**untold, "balanced": balanced})
    return evaluation


def _keep(model: Model, start: Start | None, cache: Path, client: str, config: Config) -> None:
    """Keep the returned model, and of its architecture the general model with the images to replay; without these, none
    of an earlier round. What was made of another model of an earlier round is no longer used."""
    nothing = Measured.nothing(client, "it has arrived, and nothing was measured since")
    _check(model, config)
    if not model.is_kept(cache / RETURNED):
        model.save(cache / RETURNED, nothing)
        _retire(cache / PERSONAL)
    write_json(cache / RETURNED / SETTINGS, config.settings())
    try:
        if start and (arrays := start.models.get(model.architecture)):
            start = replace(start, models={model.architecture: arrays})
            general = Model.of_start(start)
            _check(general, config)
            is_known = general.is_kept(cache / GENERAL)
            models.save_general(start, cache / GENERAL, nothing)
            if not is_known:
                _retire(cache / ALONE)
            return
    except ValueError as error:
        print(f"{client}: the server's general model is left out: {error}", flush=True)
    for folder in (GENERAL, ALONE):
        _retire(cache / folder)


def _check(model: Model, config: Config) -> None:
    """
    Raises
    ------
    ValueError: the model cannot be built.
    """
    # One that is too large for the memory now may fit another time.
    with suppress(RuntimeError, MemoryError):
        model.build(config.builders | {model.architecture})


def _retire(folder: Path) -> None:
    """Let no command use the model in a folder any more."""
    (folder / "model.json").unlink(missing_ok=True)


def compare(cache: Path, data: ClientData, config: Config, again: bool = False) -> Evaluation:
    """Make what the cache holds personal, and measure every model on the client's test images.

    Models that were made from the same parts before are kept, unless they are to be made `again`. What cannot be made
    is told, and is missing from the result.

    Raises
    ------
    OSError, ValueError: the cache holds no returned model.
    OSError, ValueError, RuntimeError, MemoryError: a model cannot be measured, or the personal one cannot be made
        `again`; then the former one is kept.
    """
    returned, start = Model.load(cache / RETURNED), models.load_general(cache / GENERAL)
    measured = {"returned": _measure(returned, data, config)}
    measured["returned"].write(cache / RETURNED)
    own, found = _measure_own(cache, data, config)
    if found:
        measured["own"] = found
    tasks = {"personal": (PERSONAL, returned, "your personal model")}
    if start:
        general = Model.of_start(start)
        measured["general"] = _measure(general, data, config)
        measured["general"].write(cache / GENERAL)
        tasks["no_federation"] = (ALONE, general, "a model without the federation")
    for key, (folder, base, name) in tasks.items():
        try:
            # Without the federation a client has the general model alone: its upload is the round's.
            candidate = own if key == "personal" else None
            measured[key] = _personalise(base, candidate, data, start, config, cache / folder, name, again)
        except TROUBLE as error:
            if again and key == "personal":
                raise
            _retire(cache / folder)
            print(f"{data.name}: {name} cannot be made: {first_line(error)}", flush=True)
    if not len(data.test):
        return Evaluation(num_examples=0)
    accuracies = {name: found.accuracy for name, found in measured.items()}
    balanced = {name: found.balanced_accuracy for name, found in measured.items()}
    return Evaluation.model_validate({"num_examples": len(data.test), "balanced": balanced} | accuracies)


def compare_again(cache: Path, node_config: NodeConfig) -> Evaluation:
    """Make the models in a cache personal again, with the settings of the last round and the images that the node
    config names.

    Raises
    ------
    OSError, ValueError: the cache holds no returned model, or a damaged one, or the images cannot be read.
    RuntimeError, MemoryError: the memory runs out.
    """
    file = cache / RETURNED / SETTINGS
    try:
        settings = read_object(file, models.REMEDY)
        name = Measured.read(cache / RETURNED).client
    except FileNotFoundError:
        raise ValueError(
            "it holds no returned model: wait until the model has arrived, or name another cache"
        ) from None
    try:
        config = Config.from_run_config(settings)
    except ValueError as error:
        raise ValueError(f"{file} cannot be used: {error}: {models.REMEDY}") from None
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
) -> Measured:
    """Make one model, keep it in `folder`, and return what `models.evaluate` measures of it."""
    digest = personalise.digest(base, own, data, start, config)
    if not again:
        if _read_digest(folder) == digest:
            return _measure(Model.load(folder), data, config)
        _retire(folder)
    checkpoint = folder / f"{digest}.checkpoint.safetensors"
    report = partial(_report, data.name, name, folder.parent)
    made = personalise.personalise(base, own, data, start, config, checkpoint, report)
    print(f"{data.name}: {name}: {made.describe()}", flush=True)
    measured = _measure(made.model, data, config)
    made.model.save(folder, measured, recipe=made.recipe() | {"digest": digest})
    for file in folder.glob("*.checkpoint.safetensors"):
        file.unlink()
    return measured


def _read_digest(folder: Path) -> str:
    """The digest of what a folder's model was made from; empty if there is none, or its description is damaged."""
    try:
        return str(models.read_description(folder)["recipe"]["digest"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _report(client: str, name: str, cache: Path, epoch: int, epochs: int, seconds_left: float) -> None:
    print(f"{client}: {name}, epoch {epoch}/{epochs}, {seconds_left:.0f} s left", flush=True)
    append_event(cache, Trained(name=name, epoch=epoch, epochs=epochs, seconds_left=round(seconds_left, 1)))


def _measure(model: Model, data: ClientData, config: Config) -> Measured:
    builders = config.builders | {model.architecture}
    return evaluate(model, data, builders, labels.parse_aliases(config.clients.class_aliases))


def _measure_own(cache: Path, data: ClientData, config: Config) -> tuple[Model | None, Measured | None]:
    """The classifier that was uploaded last and what is measured of it, which is kept beside it; None if it cannot be
    read or built."""
    if not (folder := find_upload(cache)):
        return None, None
    try:
        own = Model.of_upload(Upload.load(folder))
        found = _measure(own, data, config)
        found.write(folder)
        return own, found
    except TROUBLE as error:
        print(f"{data.name}: your own upload is left out, for it cannot be used: {first_line(error)}", flush=True)
        return None, None
