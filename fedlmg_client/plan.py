"""What a client decides before it trains: its architecture, the classifiers that it uploads, whether a start fits."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from common import labels
from common.answer import Answer
from common.clients.data import ClientData
from common.clients.node_config import NodeConfig, privacy_of, read_node_config
from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.devices import default_device
from common.labels import maps
from common.models import architectures
from common.start import Start, StartError
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import faults, probe
from fedlmg_client.training import check_trainable


def make_answer(node_config: NodeConfig, config: Config, data: ClientData, cache: Path) -> Answer:
    """What the client tells before it trains; what a copy of the student's architecture costs is printed.

    Raises
    ------
    ValueError: a setting cannot be used, the architecture is unknown, or the data cannot be trained on.
    """
    check_trainable(data)
    settings, private = read_node_config(node_config), bool(privacy_of(node_config, config).dp_epsilon)
    takes_start = config.general.warm_start and settings.warm_start
    upload = (settings.upload or config.training.upload) if takes_start else "own"
    if private and upload == "both":
        # A budget pays for one classifier. This is the one that can be merged.
        upload = "student"
    student = config.distillation.student_architecture
    architecture = student if upload == "student" else choose_architecture(node_config, config, data, cache)
    model = architectures.build(
        architecture, len(data.class_names), config.training.image_size, trusted_builders(architecture, config)
    )
    if private and not takes_start and architectures.has_batch_norm(model):
        architecture = architectures.base_architecture(architecture) + architectures.GROUP_NORM
    if upload == "both" and student != architecture and not _affords_copy(architecture, config, data, cache):
        upload = "own"
    return Answer(
        client=data.name,
        architecture=architecture,
        class_names=data.class_names,
        upload=upload,
        warm_start=takes_start,
    )


def choose_architecture(node_config: NodeConfig, config: Config, data: ClientData, cache: Path) -> str:
    """The architecture of the client's own classifier: that of its node config, or the run's for its number."""
    name = str(node_config.get("architecture", ""))
    if name == probe.AUTO:
        return probe.choose_architecture_once(cache, config, len(data.class_names), len(data.train), default_device())
    names = config.training.architecture_names
    chosen = name or names[int(node_config.get("partition-id", 0)) % len(names)]
    return faults.spoil_architecture(faults.find_fault(data, config), chosen)


def trusted_builders(architecture: str, config: Config) -> frozenset[str]:
    """Builders that the client imports: those of the run's settings, and that of its own architecture."""
    return config.builders | {architectures.base_architecture(architecture)}


def take_start(start: Start | None, answer: Answer, data: ClientData, config: Config) -> Start | None:
    """The part of a start that the client can use: the general models that it asked for and that fit it.

    None if it can use nothing, refuses a start, or was sent none. Why it cannot use a start is printed.
    """
    if not answer.warm_start:
        return None
    if start and not (problem := _find_problem(start, data, config)):
        start = _select_models(start, answer, data, config)
        problem = "" if start.models else "none of its models fits"
    elif not start:
        problem = "the server sent none"
    if problem:
        print(f"{data.name}: trains from its own initial weights without a warm start: {problem}", flush=True)
        return None
    return start


def _find_problem(start: Start, data: ClientData, config: Config) -> str:
    """Why no model of the start can be used, in a clause; empty if one may."""
    if start.preprocess != PreprocessSpec.of(config.training.image_size, config.distillation.student_initialisation):
        return f"the start is for images prepared otherwise ({start.preprocess})"
    indices = _find_classes(data, start, config).tolist()
    lacking = [name for name, index in zip(data.class_names, indices, strict=True) if index < 0]
    return f"the start lacks the class '{lacking[0]}'" if lacking else ""


def _select_models(start: Start, answer: Answer, data: ClientData, config: Config) -> Start:
    """The same with those of its models that the client wants and that fit; it prints which do not."""
    student = config.distillation.student_architecture
    wanted = {answer.architecture} | ({student} if answer.upload == "both" else set())
    fitting = {}
    for architecture in sorted(wanted):
        try:
            start.build(architecture, trusted_builders(architecture, config))
        except StartError as error:
            print(f"{data.name}: '{architecture}' gets no warm start: {error}", flush=True)
        else:
            fitting[architecture] = start.models[architecture]
    return replace(start, models=fitting)


def limit_replay(start: Start, megabytes: float, client: str) -> Start:
    """The same with at most so many MB (10**6 bytes) of replay images, evenly chosen; it prints how many are left."""
    images, labels = start.replay.images, start.replay.labels
    most = int(megabytes * 1e6 / max(1, images[:1].numel()))
    if most >= len(labels):
        return start
    print(
        f"{client}: keeps {most} of {len(labels)} replay images, for 'max-replay-megabytes' is {megabytes:g}",
        flush=True,
    )
    rows = torch.arange(most) * len(labels) // max(1, most)
    return replace(start, replay=LabeledImages(images[rows], labels[rows]))


def leave_out(data: ClientData, classes: Mapping[str, str]) -> ClientData:
    """The same without the images of some classes, given with the reasons of each, which are printed."""
    kept = [number for number, name in enumerate(data.class_names) if name not in classes]
    if len(kept) == len(data.class_names):
        return data
    for name in data.class_names:
        if name in classes:
            print(f"{data.name}: the images of class '{name}' are left out: {classes[name]}", flush=True)
    indices = torch.full((len(data.class_names),), -1)
    indices[kept] = torch.arange(len(kept))
    return _renumber(data, [data.class_names[number] for number in kept], indices)


def relabel(data: ClientData, start: Start, config: Config) -> ClientData:
    """The same images with labels in the start's classes, all of which the data's classes must be."""
    return _renumber(data, list(start.class_names), _find_classes(data, start, config))


def _renumber(data: ClientData, class_names: list[str], indices: torch.Tensor) -> ClientData:
    """The images whose class has an index of `class_names`, int64 (classes,), that is not -1."""
    train, validation, test = (
        part.with_labels(indices[part.labels]) for part in (data.train, data.validation, data.test)
    )
    return replace(data, class_names=class_names, train=train, validation=validation, test=test)


def _find_classes(data: ClientData, start: Start, config: Config) -> torch.Tensor:
    aliases = labels.parse_aliases(config.clients.class_aliases)
    return maps.find_indices(data.class_names, start.class_names, aliases)


def _affords_copy(architecture: str, config: Config, data: ClientData, cache: Path) -> bool:
    """Whether the client can train its own classifier and a copy of the student in time; says what the copy costs."""
    copy = config.distillation.student_architecture
    num_classes, num_images = len(data.class_names), len(data.train)
    cost = probe.estimate_copy_once(cache, config, architecture, num_classes, num_images, default_device())
    most = probe.most_seconds(config)
    costs = f"a copy of '{copy}' takes {cost.copy_seconds:.0f} s more and adds {cost.megabytes:.1f} MB to the upload"
    if cost.own_seconds + cost.copy_seconds <= most:
        print(f"{data.name}: {costs}", flush=True)
        return True
    print(
        f"{data.name}: uploads its own classifier alone: {costs}, and with {cost.own_seconds:.0f} s of its own "
        f"training that is above {most:.0f} s, a third of the deadline",
        flush=True,
    )
    return False
