"""`general-stain-normalised`: the general model on test images whose stain is matched to that of the general images.

Stains are matched by the moments of Reinhard et al. (2001) in the colour space l-alpha-beta. The clients need no
training for it, so that it is what a laboratory would try first.
"""

import torch

from common.datasets.labeled_images import LabeledImages
from fedlmg_server.baselines.outcome import Cost, DoesNotApply, Outcome, bytes_to_every_client
from fedlmg_server.baselines.start import general_classifier
from fedlmg_server.baselines.virtual_run import Accuracies, VirtualRun
from fedlmg_server.general.starts import load_replay

LMS = torch.tensor([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
"""From red, green and blue to the cones' answers."""
LAB = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]]) / torch.tensor([[3.0], [6.0], [2.0]]).sqrt()
"""From their logarithms to l, alpha and beta."""
DARKEST = 1 / 255


def stain_normalised(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: as `measure`.
    """
    classifier = general_classifier(run, run.config.distillation.student_architecture)
    return Outcome(measure(run), Cost(download_bytes=bytes_to_every_client(run, classifier.network)))


def measure(run: VirtualRun) -> Accuracies:
    """Client -> accuracy of the general model of the student's architecture on its normalised test images.

    Raises
    ------
    DoesNotApply: the run's images are not from microscopes, or it has no general model or no images to replay.
    """
    if run.config.general.looks != "microscopy":
        raise DoesNotApply("stains are of microscopes' images: set 'looks' to 'microscopy'")
    classifier = general_classifier(run, run.config.distillation.student_architecture)
    public = load_replay(run).images
    if not len(public):
        raise DoesNotApply("there are no general images to take the stain of: raise 'replay-megabytes'")
    tests = {client: LabeledImages(normalise(test.images, public), test.labels) for client, test in run.test.items()}
    return run.measure_classifier(classifier, tests=tests)


def normalise(images: torch.Tensor, public: torch.Tensor) -> torch.Tensor:
    """Give each image the mean and the deviation in l, alpha and beta that `public` images have on average.

    Both are uint8 (N, 3, h, w), as is what is returned; their sizes may differ.
    """
    wanted_mean, wanted_deviation = (moments.mean(0) for moments in _moments(_to_lab(public)))
    lab = _to_lab(images)
    mean, deviation = _moments(lab)
    matched = (lab - mean) / deviation.clamp(min=1e-6) * wanted_deviation + wanted_mean
    cones = 10 ** torch.einsum("ij,njhw->nihw", torch.linalg.inv(LAB), matched)
    colours = torch.einsum("ij,njhw->nihw", torch.linalg.inv(LMS), cones)
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8)


def _to_lab(images: torch.Tensor) -> torch.Tensor:
    cones = torch.einsum("ij,njhw->nihw", LMS, images.cpu().float() / 255)
    return torch.einsum("ij,njhw->nihw", LAB, cones.clamp(min=DARKEST).log10())


def _moments(lab: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each image and channel, (N, 3, 1, 1) each."""
    return lab.mean((2, 3), keepdim=True), lab.std((2, 3), keepdim=True)
