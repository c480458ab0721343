"""FedAvg (McMahan et al., 2017): in one exchange, the mean of the uploads; in many, Flower's own strategy."""

import torch
from flwr.serverapp.strategy import FedAvg

from common.labels.maps import to_global_indices
from common.models import architectures, pretrained
from fedlmg_server.baselines import rounds
from fedlmg_server.baselines.federation import Federation, Outcome


def one_shot(federation: Federation) -> Outcome:
    """The uploads' mean by number of images, used by everyone.

    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    federation.alike()
    cost = federation.one_exchange()
    with cost.timed("server"):
        model = average(federation)
    cost.download_bytes = federation.sent_back(model)
    return Outcome(federation.measure(model), cost)


def average(federation: Federation) -> torch.nn.Module:
    """Each tensor's mean weighted by number of images; of the last layer, each class's row over the clients that know
    it (ours, where label spaces differ).

    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    architecture = federation.alike()
    config, names = federation.config, federation.class_names
    model = architectures.build(architecture, len(names), config.training.image_size, config.builders)
    mean, head = {key: torch.zeros_like(value).float() for key, value in model.state_dict().items()}, {}
    total, per_class = 0, torch.zeros(len(names))
    for upload in federation.uploads:
        images, rows = upload.manifest["training"]["num_examples"], to_global_indices(upload.class_names, names)
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
    return model.to(federation.device)


def many_rounds(federation: Federation) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    return rounds.run(federation, FedAvg(**rounds.everyone(federation)))
