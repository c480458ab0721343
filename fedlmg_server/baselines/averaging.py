"""The mean of the uploads' weights, for baselines whose clients share one architecture."""

import torch

from common.labels.maps import to_global_indices
from common.models import architectures, pretrained
from common.models.predictor import Classifier
from common.upload import Upload
from fedlmg_server.baselines.outcome import DoesNotApply
from fedlmg_server.run import Run


def shared_architecture(run: Run) -> str:
    """The architecture that all clients share.

    Raises
    ------
    DoesNotApply: they differ, or see images of different sizes.
    """
    names = sorted({upload.manifest.architecture for upload in run.uploads})
    if len(names) > 1:
        raise DoesNotApply(f"clients have unlike architectures ({', '.join(names)})")
    if len({upload.preprocess for upload in run.uploads}) > 1:
        raise DoesNotApply("clients preprocess their images differently")
    return names[0]


def average_uploads(run: Run) -> torch.nn.Module:
    """Each tensor's mean weighted by number of images; of the last layer, each class's row over the clients that know
    it (ours, where label spaces differ).

    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    architecture = shared_architecture(run)
    config, names = run.config, run.class_names
    model = architectures.build(architecture, len(names), config.training.image_size, config.builders)
    mean = {key: torch.zeros_like(value).float() for key, value in model.state_dict().items()}
    head: set[str] = set()
    total, per_class = 0, torch.zeros(len(names))
    for upload in run.uploads:
        images, rows = upload.manifest.training.num_examples, to_global_indices(upload.class_names, names)
        total, classifier = total + images, upload.classifier()
        per_class[rows] += images
        head = {f"{pretrained.head_name(classifier)}.{part}" for part in ("weight", "bias")}
        for key, value in classifier.state_dict().items():
            if key in head:
                mean[key][rows] += images * value
            else:
                mean[key] += images * value
    for key, value in mean.items():
        mean[key] = value / (per_class.reshape(-1, *[1] * (value.dim() - 1)) if key in head else total)
    model.load_state_dict(mean)
    return model.to(run.device)


def average_copies(run: Run) -> Classifier:
    """The mean, weighted by number of images, of the classifiers of the student's architecture that share a start:
    clients' own ones, or the copies beside them.

    Raises
    ------
    DoesNotApply: fewer than two clients uploaded one, or they began with different starts.
    """
    architecture, config = run.config.distillation.student_architecture, run.config
    found = [(upload, *_find_copy(upload, architecture)) for upload in run.uploads]
    sharing = [(upload, weights) for upload, weights, start in found if start]
    if len(sharing) < 2:
        raise DoesNotApply(f"fewer than two clients uploaded a '{architecture}' that began as a general model")
    if len({start for *_, start in found if start}) > 1:
        raise DoesNotApply("the clients' classifiers began as different general models")
    names = sharing[0][0].class_names
    model = architectures.build(architecture, len(names), config.training.image_size, config.builders)
    mean = {key: torch.zeros_like(value).float() for key, value in model.state_dict().items()}
    total = sum(upload.manifest.training.num_examples for upload, _ in sharing)
    for upload, weights in sharing:
        for key, value in weights.items():
            mean[key] += upload.manifest.training.num_examples / total * value
    model.load_state_dict(mean)
    return Classifier(model.to(run.device).eval(), names, run.preprocess)


def _find_copy(upload: Upload, architecture: str) -> tuple[dict[str, torch.Tensor], str]:
    """Weights of the upload's classifier of an architecture, and the checksum of the general model as which it began;
    empty if there is none."""
    said = upload.manifest
    if said.student_copy and said.student_copy.architecture == architecture:
        return upload.student_copy, said.student_copy.start
    return (upload.arrays, said.start) if said.architecture == architecture else ({}, "")
