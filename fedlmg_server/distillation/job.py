"""The training of a student as a process is told it, in numbers and files alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from safetensors.torch import load, save

from common.config import Config
from common.models import architectures
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import trainer
from fedlmg_server.general.images import general_class_names
from fedlmg_server.run import Run
from fedlmg_server.trainer import Checkpoint, TrainingSet

Trained = tuple[dict[str, torch.Tensor], list[dict]]
"""A student's weights on the CPU, and its loss history."""


FINE_TUNING_RATE = 0.2
"""Of `student-learning-rate`, for a student that starts from a general model: at the whole rate it forgets more of what
that knows than it learns (chosen on validation images)."""


@dataclass(frozen=True)
class Job:
    """What a process needs of a run to train its student."""

    config: Config
    num_classes: int
    num_updates: int
    start: bytes
    """The student's first weights, as a safetensors file."""

    @classmethod
    def of(cls, run: Run, model: torch.nn.Module) -> "Job":
        """The training of the run's student from the weights of `model`."""
        start = save({name: tensor.contiguous() for name, tensor in weights_of(model).items()})
        return cls(config_of(run), len(run.class_names), run.num_updates, start)

    def train(
        self,
        data: TrainingSet,
        on_epoch: Callable[[dict], None] = lambda entry: None,
        checkpoint: Checkpoint | None = None,
        team: Accelerator | None = None,
    ) -> Trained:
        """team: as `trainer.train` takes it."""
        config = self.config
        architecture, size = config.distillation.student_architecture, config.training.image_size
        with torch.random.fork_rng(devices=[]):
            model = architectures.build(architecture, self.num_classes, size, config.builders)
        model.load_state_dict(load(self.start))
        if team:
            model.to(team.device)
        history = train_model(model, data, config, self.num_updates, on_epoch, checkpoint, team)
        return weights_of(model), history


def starts_from_general(run: Run) -> bool:
    """Whether the run's student starts from a general model: with a warm start, unless `student-initialisation` says
    otherwise, or a client that came late has a class that the general model lacks."""
    settings = run.config.distillation
    return (
        run.config.general.warm_start
        and not settings.student_initialisation
        and general_class_names(run) == run.class_names
    )


def config_of(run: Run) -> Config:
    """The run's config, with the learning rate of its student."""
    settings = run.config.distillation
    if not starts_from_general(run):
        return run.config
    rate = FINE_TUNING_RATE * settings.student_learning_rate
    return replace(run.config, distillation=replace(settings, student_learning_rate=rate))


def train_model(
    model: torch.nn.Module,
    data: TrainingSet,
    config: Config,
    num_updates: int,
    on_epoch: Callable[[dict], None] = lambda entry: None,
    checkpoint: Checkpoint | None = None,
    team: Accelerator | None = None,
) -> list[dict]:
    """Train a student in place as the run's config says; returns its loss history."""
    preprocess = PreprocessSpec.of(config.training.image_size, config.distillation.student_initialisation)
    return trainer.train(
        model,
        data,
        preprocess,
        config.distillation,
        config.seed,
        num_updates,
        on_epoch=on_epoch,
        looks=config.general.looks,
        checkpoint=checkpoint,
        team=team,
    )


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}
