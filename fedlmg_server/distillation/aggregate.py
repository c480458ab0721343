"""One aggregated model from a synthetic set and the clients' classifiers as teachers."""

import json
from dataclasses import dataclass

import torch

from common.config import Config, ConfigError
from common.labels import union_of_names
from common.labels.maps import mark_known
from common.models import architectures, pretrained
from common.storage.atomic import write_json
from common.storage.tensors import read_tensors, write_tensors
from common.upload import Upload
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.distillation import teachers, trainer
from fedlmg_server.distillation.quality import Verdict, judge
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.distillation.trainer import OnEpoch, TrainingSet
from fedlmg_server.synthesis.filters import Rejected
from fedlmg_server.workspace import Workspace

AGGREGATIONS = ("fine-tuning", "multi-teacher", "specific-teacher")


@dataclass(frozen=True)
class Distilled:
    """A student, and what it came from."""

    model: torch.nn.Module
    history: list[dict]
    """Loss by epoch."""
    verdicts: dict[str, Verdict]
    rejected: Rejected


class TeacherCache:
    """Each teacher reads each set once."""

    def __init__(self, synthetic: SyntheticSet, uploads: list[Upload], device: torch.device):
        self.synthetic = synthetic
        self.per_client = {
            upload.client: teachers.probabilities(upload, synthetic.images, synthetic.class_names, device)
            for upload in uploads
        }
        self.known = {upload.client: mark_known(upload.class_names, synthetic.class_names) for upload in uploads}

    def training_set(self, aggregation: str, weights: dict[str, float]) -> TrainingSet:
        """Images and targets of one aggregation, without the images of clients whose weight is 0."""
        images = self.synthetic
        rows = torch.tensor([weights[client] > 0 for client in images.clients])
        if not rows.any():
            raise ConfigError(
                "no image of a client that can be trusted passed the filter: set the config key 'teacher-weighting' "
                "to 'uniform', or lower 'min-confidence'"
            )
        targets = None
        if aggregation == "multi-teacher":
            targets = teachers.multi_teacher(self.per_client, self.known, weights, images.labels)[rows]
        elif aggregation == "specific-teacher":
            targets = teachers.specific_teacher(self.per_client, images.clients)[rows]
        return TrainingSet(images.images[rows], images.labels[rows], targets)


def weights(workspace: Workspace) -> dict[str, float]:
    """Client -> weight, as the clients were judged when the aggregated model was made."""
    return {client: verdict["weight"] for client, verdict in verdicts(workspace).items()}


def verdicts(workspace: Workspace) -> dict[str, dict]:
    """Client -> its `quality.Verdict` as JSON."""
    return json.loads((workspace.model / "quality.json").read_text())


def student(config: Config, num_classes: int, uploads: list[Upload], device: torch.device) -> torch.nn.Module:
    """The untrained student, initialised as the config asks.

    Raises
    ------
    ConfigError: the initialisation does not fit the architecture.
    """
    settings = config.distillation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _untrained(config, settings.student_architecture, num_classes)
    if settings.student_initialisation == "average":
        alike = [upload for upload in uploads if upload.manifest["architecture"] == settings.student_architecture]
        if not alike:
            raise ConfigError(
                f"no client uploaded a '{settings.student_architecture}' to average: clear the config key "
                "'student-initialisation'"
            )
        states = [upload.classifier().state_dict() for upload in alike]
        model.load_state_dict({name: sum(state[name] for state in states) / len(states) for name in states[0]})
    elif settings.student_initialisation == pretrained.IMAGENET:
        pretrained.initialise(model, settings.student_architecture, pretrained.IMAGENET)
    elif settings.student_initialisation:
        weights, _ = read_tensors(settings.student_initialisation)
        fitting = {
            k: v for k, v in weights.items() if k in model.state_dict() and v.shape == model.state_dict()[k].shape
        }
        model.load_state_dict(fitting, strict=False)
    return model.to(device)


def _untrained(config: Config, architecture: str, num_classes: int) -> torch.nn.Module:
    return architectures.build(architecture, num_classes, config.training.image_size, config.builders)


def signature(uploads: list[Upload]) -> list[str]:
    """What an aggregated model was made from: the uploads' digests."""
    return sorted(upload.manifest["sha256"] for upload in uploads)


def save(
    workspace: Workspace,
    config: Config,
    uploads: list[Upload],
    distilled: Distilled,
) -> None:
    """Write `model/model.safetensors` and `model/quality.json`, then `model/model.json`, which makes it whole.

    Raises
    ------
    ValueError: a model whose weights are not finite.
    """
    if not all(tensor.isfinite().all() for tensor in distilled.model.state_dict().values()):
        raise ValueError("the model's weights are no numbers: lower 'student-learning-rate', or raise 'temperature'")
    verdicts = {client: verdict.to_json() for client, verdict in distilled.verdicts.items()}
    write_json(workspace.model / "quality.json", verdicts)
    write_tensors(workspace.model / "model.safetensors", distilled.model.state_dict())
    description = {
        "architecture": config.distillation.student_architecture,
        "class_names": union_of_names([upload.class_names for upload in uploads]),
        "preprocessing": preprocessing(config).to_json(),
        "aggregation": config.distillation.aggregation,
        "made_from": signature(uploads),
        "history": distilled.history,
        "rejected": distilled.rejected,
    }
    write_json(workspace.model / "model.json", description)


def is_saved(workspace: Workspace, uploads: list[Upload]) -> bool:
    """Whether the workspace holds a whole model made from just these uploads."""
    path = workspace.model / "model.json"
    return path.exists() and json.loads(path.read_text())["made_from"] == signature(uploads)


def load(workspace: Workspace, config: Config, device: torch.device) -> tuple[torch.nn.Module, list[dict]]:
    """The saved aggregated model and its loss history."""
    description = json.loads((workspace.model / "model.json").read_text())
    model = _untrained(config, description["architecture"], len(description["class_names"]))
    model.load_state_dict(read_tensors(workspace.model / "model.safetensors")[0])
    return model.to(device).eval(), description["history"]


def num_updates(config: Config, uploads: list[Upload]) -> int:
    """Batches that every student trains for: `student_epochs` over the planned images."""
    planned = config.synthesis.images_per_class * sum(len(upload.class_names) for upload in uploads)
    return max(1, config.distillation.student_epochs * planned // config.distillation.student_batch_size)


def preprocessing(config: Config) -> PreprocessSpec:
    return PreprocessSpec(image_size=config.training.image_size)


def distil_from(
    config: Config,
    uploads: list[Upload],
    synthetic: SyntheticSet,
    device: torch.device,
    on_epoch: OnEpoch = lambda entry: None,
) -> Distilled:
    """Judge the clients and train the student that the config asks for."""
    cache = TeacherCache(synthetic, uploads, device)
    judged = judge(uploads, synthetic, cache.per_client, config.distillation.teacher_weighting)
    weights = {client: verdict.weight for client, verdict in judged.items()}
    data = cache.training_set(config.distillation.aggregation, weights)
    model, history = distil(config, uploads, data, len(synthetic.class_names), device, on_epoch)
    return Distilled(model, history, judged, synthetic.rejected)


def distil(
    config: Config,
    uploads: list[Upload],
    data: TrainingSet,
    num_classes: int,
    device: torch.device,
    on_epoch: OnEpoch = lambda entry: None,
) -> tuple[torch.nn.Module, list[dict]]:
    """Train one student; returns it and its loss history."""
    model = student(config, num_classes, uploads, device)
    updates = num_updates(config, uploads)
    history = trainer.train(model, data, preprocessing(config), config.distillation, config.seed, updates, on_epoch)
    return model, history
