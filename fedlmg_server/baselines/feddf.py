"""FedDF (Lin et al., NeurIPS 2020) in one exchange: the ensemble distilled on unlabelled public images.

The images are of those that trained the embedded diffusion model, or of a folder's: the same public knowledge that
FedLMG has. The student starts from the mean of the uploads where their architecture is its own, as in the paper, and
follows the mean of the clients' probabilities, as the authors of FedLMG ran it.
"""

import torch

from common.datasets.embedded import registry
from fedlmg_server.baselines import fedavg
from fedlmg_server.baselines.federation import DoesNotApply, Federation, Outcome
from fedlmg_server.distillation import aggregate, teachers, trainer
from fedlmg_server.distillation.trainer import TrainingSet

MOST_IMAGES = 20_000
SEED_OF_PRETRAINING = 0
"""Of the embedded public sets: the first images that it draws are those that trained the diffusion model."""


def feddf(federation: Federation) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: no public images.
    """
    images, cost = public_images(federation), federation.one_exchange()
    with cost.timed("server"):
        per_client = {
            upload.client: teachers.probabilities(upload, images, federation.class_names, federation.device)
            for upload in federation.uploads
        }
        data = TrainingSet(images, None, teachers.multi_teacher(per_client, federation.known))
        model, config = _start(federation), federation.config
        preprocess = aggregate.preprocessing(config)
        trainer.train(model, data, preprocess, config.distillation, config.seed, federation.num_updates)
    cost.num_images = len(images)
    cost.download_bytes = federation.sent_back(model)
    return Outcome(federation.measure(model), cost)


def public_images(federation: Federation) -> torch.Tensor:
    """As many as the student sees in all, up to MOST_IMAGES: uint8 (N, 3, h, w).

    Raises
    ------
    DoesNotApply: the clients' images are from folders, and no public ones were named.
    """
    config = federation.config
    count = min(MOST_IMAGES, federation.num_updates * config.distillation.student_batch_size)
    if federation.public is not None:
        shuffled = torch.randperm(len(federation.public), generator=torch.Generator().manual_seed(config.seed))
        return federation.public[shuffled[:count]]
    if not config.federation.federation or config.simulation.folders:
        raise DoesNotApply("the experiment names no `public` images")
    return registry.find_dataset(config.federation.federation).make_public_images(count, SEED_OF_PRETRAINING).images


def _start(federation: Federation) -> torch.nn.Module:
    try:
        if federation.alike() == federation.config.distillation.student_architecture:
            return fedavg.average(federation)
    except DoesNotApply:
        pass
    return federation.student()
