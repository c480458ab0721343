"""The student: one classifier for every class of the run, as it starts and as it is trained."""

import hashlib
import json
from pathlib import Path

import torch

from common.config import ConfigError
from common.models import architectures, pretrained
from common.storage.images import ImageView
from common.storage.tensors import read_tensors
from common.vision.preprocessing import IMAGENET
from fedlmg_server.distillation.job import Job, config_of, starts_from_general, train_model
from fedlmg_server.distillation.team import num_processes, train_as_team
from fedlmg_server.general.models import load_general_model
from fedlmg_server.run import Run
from fedlmg_server.trainer import Checkpoint, OnEpoch, TrainingSet


def make_student(run: Run) -> torch.nn.Module:
    """The student before it is trained: as `student-initialisation` asks, or the general model (`starts_from_general`).

    Raises
    ------
    ConfigError: the initialisation does not fit the architecture.
    """
    settings = run.config.distillation
    architecture, initialisation = settings.student_architecture, settings.student_initialisation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config.seed)
        model = build_classifier(run, architecture, len(run.class_names))
    if initialisation == "average":
        alike = [upload for upload in run.uploads if upload.manifest.architecture == architecture]
        if not alike:
            raise ConfigError(
                f"no client uploaded a '{architecture}' to average: clear the config key 'student-initialisation'"
            )
        states = [upload.classifier().state_dict() for upload in alike]
        model.load_state_dict({name: sum(state[name] for state in states) / len(states) for name in states[0]})
    elif initialisation == IMAGENET:
        pretrained.initialise(model, architecture, IMAGENET)
    elif initialisation:
        weights, _ = read_tensors(Path(initialisation))
        own = model.state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
        model.load_state_dict(fitting, strict=False)
    elif starts_from_general(run):
        model.load_state_dict(load_general_model(run, architecture).state_dict())
    return model.to(run.device)


def build_classifier(run: Run, architecture: str, num_classes: int) -> torch.nn.Module:
    """An untrained classifier that sees images as large as the run's."""
    return architectures.build(architecture, num_classes, run.config.training.image_size, run.config.builders)


def train_student(
    run: Run, data: TrainingSet, on_epoch: OnEpoch = lambda entry: None, file: Path | None = None
) -> tuple[torch.nn.Module, list[dict]]:
    """Train one student on `data`, on several accelerators where there are; returns it and its loss history. With a
    `file`, a training that was killed goes on from there."""
    model = make_student(run)
    checkpoint = Checkpoint(file, _key(run, data)) if file else None
    if (size := num_processes(run.config, run.device, len(data.images))) > 1:
        weights, history = train_as_team(Job.of(run, model), data, run.device, size, on_epoch, checkpoint)
        model.load_state_dict(weights)
        return model.eval(), history
    return model, train_model(model, data, config_of(run), run.num_updates, on_epoch, checkpoint)


def _key(run: Run, data: TrainingSet) -> str:
    """Of the uploads, the settings, and what is to be learned from images that follow from these."""
    digest = hashlib.sha256(json.dumps([run.checksums, config_of(run).settings(), run.num_updates]).encode())
    votes = data.readers.votes if data.readers else None
    for tensor in (ImageView.of(data.images).rows, data.labels, data.teacher, votes):
        if tensor is not None:
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
