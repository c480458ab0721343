"""The mean of the uploads' weights, for baselines whose clients share one architecture."""

import torch

from common.labels.maps import to_global_indices
from common.models import architectures, pretrained
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
