"""General models of a run: what the workspace or the cache lacks is trained, once for each architecture."""

from pathlib import Path

import torch
from accelerate import init_empty_weights

from common.config import ConfigError
from common.models import architectures, pretrained
from common.names import safe_name
from common.storage.caches import cache_root
from common.vision.preprocessing import IMAGENET
from fedlmg_server.events import Note, Progress
from fedlmg_server.general import training
from fedlmg_server.general.images import GeneralImages, general_class_names, load_general_images
from fedlmg_server.general.training import GeneralModel, Job
from fedlmg_server.monitor.text import shorten
from fedlmg_server.run import Run

STAGE = "general models"
REPLAY = "replay.safetensors"
"""File beside the models."""
MOST_WEIGHTS = 50_000_000
"""Of a net that the config does not name: what a client chooses must not keep the server busy for days."""


def make_general_models(run: Run, names: list[str]) -> dict[str, GeneralModel]:
    """The general model of each architecture; one that cannot be built or trained is left out, and the run's events
    say why.

    Raises
    ------
    FolderError, ConfigError, RuntimeError: there are no general images (see `load_general_images`).
    """
    found = {name: model for name in names if (model := find_general_model(run, name)) is not None}
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if missing:
        images = load_general_images(run)
        for note in images.notes:
            run.workspace.log(Note(text=note))
        made = _make(run, missing, images)
        for name, model in made.items():
            model.write(_path(run, name))
            if not model.is_offered:
                text = f"the general model of '{name}' reads only {100 * model.accuracy:.1f} % of general images"
                run.workspace.log(Note(text=f"{text}, which is near chance: clients do not start from it"))
        found |= made
    return found


def _make(run: Run, names: list[str], images: GeneralImages) -> dict[str, GeneralModel]:
    """Models from the cache, and newly trained ones, which go there."""
    found, files, checksum = {}, {}, images.checksum
    for name in names:
        job = make_job(run, name, run.config.general.general_updates)
        try:
            _check_size(run, job)
            path = cache_root() / "general" / "models" / f"{job.key(checksum)}.safetensors"
        except Exception as error:  # A builder of the operator's may raise anything.
            _tell_failure(run, name, str(error))
            continue
        if path.exists():
            found[name] = GeneralModel.read(path)
        else:
            files[job] = path
    return found | _train(run, files, images)


def _check_size(run: Run, job: Job) -> None:
    """
    Raises
    ------
    ConfigError: a client chose a net that takes this server too long.
    """
    config = run.config
    if job.architecture in [*config.training.architecture_names, config.distillation.student_architecture]:
        return
    with init_empty_weights():
        count = sum(parameter.numel() for parameter in job.build().parameters())
    if count > MOST_WEIGHTS:
        raise ConfigError(
            f"it has {count / 1e6:.0f} million weights, and of nets that clients choose the server trains those of "
            f"{MOST_WEIGHTS / 1e6:.0f} million at most: name it in 'architectures' to have one"
        )


def make_job(run: Run, architecture: str, num_updates: int) -> Job:
    """The training of the general model of an architecture, in cycles of `num_updates`."""
    return Job(
        architecture=architecture,
        class_names=tuple(general_class_names(run)),
        preprocess=run.preprocess,
        looks=run.config.general.looks,
        seed=run.config.seed,
        num_updates=num_updates,
        builders=run.config.builders,
        device=run.device,
        from_imagenet=_starts_from_imagenet(run, architecture),
    )


def _starts_from_imagenet(run: Run, architecture: str) -> bool:
    """Whether clients and student ask for ImageNet's weights, with its normalisation, and torchvision has some."""
    asked = {run.config.training.initialisation, run.config.distillation.student_initialisation}
    return asked == {IMAGENET} and pretrained.has_imagenet_weights(architectures.base_architecture(architecture))


def _train(run: Run, files: dict[Job, Path], images: GeneralImages) -> dict[str, GeneralModel]:
    if not files:
        return {}
    found, completed, total = {}, 0, sum(job.num_updates for job in files)

    def on_updates(done: int, more: int) -> None:
        nonlocal completed, total
        total += more
        completed = min(completed + done, total)
        run.workspace.log(Progress(stage=STAGE, completed=completed, total=total, unit="updates"))

    with run.workspace.stage(STAGE):
        on_updates(0, 0)
        for job, made in training.run_all(list(files), images, on_updates):
            if isinstance(made, str):
                _tell_failure(run, job.architecture, made)
            else:
                if made.num_updates > job.num_updates:
                    run.workspace.log(Note(text=_tell_longer(made)))
                made.write(files[job])
                found[job.architecture] = made
    return found


def _tell_longer(made: GeneralModel) -> str:
    return (
        f"the general model of '{made.architecture}' read few general images, so it learned from {made.num_updates:,} "
        f"batches: now it reads {100 * made.accuracy:.1f} %"
    )


def load_general_model(run: Run, architecture: str) -> torch.nn.Module:
    """The general model that this run made, in float32 and evaluation mode, for `general_class_names`.

    Raises
    ------
    ConfigError: the run has none of that architecture.
    """
    if (found := find_general_model(run, architecture)) is None:
        raise ConfigError(f"the run has no general model of '{architecture}': set 'warm-start'")
    size = run.config.training.image_size
    model = architectures.build(architecture, len(found.class_names), size, run.config.builders)
    model.load_state_dict(found.weights)
    return model.float().to(run.device).eval()


def _path(run: Run, architecture: str) -> Path:
    return run.workspace.general / f"{safe_name(architecture)}.safetensors"


def find_general_model(run: Run, architecture: str) -> GeneralModel | None:
    """The one that this run made for `general_class_names`; None where it has none."""
    path = _path(run, architecture)
    model = GeneralModel.read(path) if path.exists() else None
    return model if model and model.class_names == general_class_names(run) else None


def _tell_failure(run: Run, name: str, reason: str) -> None:
    text = f"there is no general model of '{name}', so its clients train from scratch: {reason}"
    run.workspace.log(Note(text=shorten(text)))
