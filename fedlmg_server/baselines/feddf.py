"""FedDF (Lin et al., NeurIPS 2020) in one round: the ensemble distilled on unlabelled public images.

The images are of those that trained the embedded diffusion model, or of a folder's: the same public knowledge that
FedLMG has. The student starts from the mean of the uploads where their architecture is its own, as in the paper, and
follows the mean of the clients' probabilities, as the authors of FedLMG ran it.
"""

import torch

from common.datasets.embedded import registry
from fedlmg_server import trainer
from fedlmg_server.baselines.averaging import average_uploads, shared_architecture
from fedlmg_server.baselines.outcome import DoesNotApply, Outcome, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import teachers
from fedlmg_server.distillation.job import config_of
from fedlmg_server.distillation.student import make_student
from fedlmg_server.trainer import TrainingSet

MOST_IMAGES = 20_000
SEED_OF_PRETRAINING = 0
"""Of the embedded public sets: the first images that it draws are those that trained the diffusion model."""


def feddf(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: no public images.
    """
    images, cost = public_images(run), cost_of_uploads(run)
    with cost.timed("server"):
        per_client = teachers.predict_with_all(run, images)
        data = TrainingSet(images, None, teachers.multi_teacher(per_client, run.known_classes))
        model, config = _make_start(run), config_of(run)
        trainer.train(model, data, run.preprocess, config.distillation, config.seed, run.num_updates)
    cost.num_images = len(images)
    cost.download_bytes += bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def public_images(run: VirtualRun) -> torch.Tensor:
    """As many as the student sees in all, up to MOST_IMAGES: uint8 (N, 3, h, w).

    Raises
    ------
    DoesNotApply: the clients' images are from folders, and no public ones were named.
    """
    config = run.config
    count = min(MOST_IMAGES, run.num_updates * config.distillation.student_batch_size)
    if run.public is not None:
        shuffled = torch.randperm(len(run.public), generator=torch.Generator().manual_seed(config.seed))
        return run.public[shuffled[:count]]
    if not config.simulation.dataset or config.simulation.folders:
        raise DoesNotApply("the experiment names no `public` images")
    return registry.find_dataset(config.simulation.dataset).make_public_images(count, SEED_OF_PRETRAINING).images


def _make_start(run: VirtualRun) -> torch.nn.Module:
    try:
        if shared_architecture(run) == run.config.distillation.student_architecture:
            return average_uploads(run)
    except DoesNotApply:
        pass
    return make_student(run)
