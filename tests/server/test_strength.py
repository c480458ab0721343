"""What a client's classifier cost and gained: figures known by hand, and a run of one client."""

from dataclasses import replace

import pytest
import torch

from common.datasets.embedded.digits import CLASS_NAMES
from common.models import architectures
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.evaluation import image_quality, strength
from fedlmg_server.evaluation.strength import Measured
from tests.conftest import make_upload
from tests.manifests import make_training, saying

CPU = torch.device("cpu")
TRAINING = make_training(epochs=2, num_examples=50, seconds=1.5, test_accuracy_wire=0.25)
ROW = Measured(0, "mnist", "small_mlp", 5, 2_000_000_000, 3.0, 4000, 0.5, 160, 0.9, 0.01, 0.5, 0.8)


class OneProduct(torch.nn.Module):
    """A matrix product of 3 x 32 x 32 by 10, and nothing else that counts."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3 * 32 * 32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def test_training_takes_three_times_the_products_of_every_image_in_every_epoch(monkeypatch: pytest.MonkeyPatch):
    upload = saying(make_upload("mnist", list(CLASS_NAMES)), training=TRAINING)
    network = OneProduct()
    monkeypatch.setattr(architectures, "build", lambda *_: network)
    upload = replace(upload, arrays=dict(network.state_dict()))

    flops = strength.training_flops(upload)

    assert flops == 3 * (2 * 3 * 32 * 32 * 10) * 50 * 2


def test_a_client_stands_with_its_cost_its_images_and_the_model_given_back(
    finished: VirtualRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(image_quality, "CLASSIFIER_EPOCHS", 2)
    finished.uploads[0] = upload = saying(finished.uploads[0], training=TRAINING)

    (row,) = strength.measure(finished)

    model = load_model(finished)
    assert (row.client, row.architecture, row.epochs, row.seconds) == ("mnist", "small_resnet", 2, 1.5)
    assert (row.own_accuracy, row.upload_bytes, row.num_images) == (0.25, upload.num_bytes, 80)
    assert (row.flops, row.returned_accuracy) == (strength.training_flops(upload), finished.measure(model)["mnist"])


def test_the_images_of_a_client_are_the_guided_ones_of_all_classes(
    finished: VirtualRun, monkeypatch: pytest.MonkeyPatch
):
    finished.uploads[0] = saying(finished.uploads[0], training=TRAINING)
    measured = image_quality.Measured(0, "guided", "mnist", "all", 80, 0.9, 0.8, 7.0, 0.01, 0.5, 0.6, 0.7, 0.8)
    others = [replace(measured, images="unguided", kid=1.0), replace(measured, class_name="3", kid=2.0)]
    monkeypatch.setattr(image_quality, "measure", lambda run: iter([others[0], measured, others[1]]))

    (row,) = strength.measure(finished)

    assert (row.num_images, row.read_as_asked, row.kid, row.coverage) == (80, 0.9, 0.01, measured.coverage)


def test_table_has_a_line_a_client_and_number_of_epochs_with_its_spread():
    rows = [ROW, replace(ROW, seed=1, own_accuracy=0.7, kid=None), replace(ROW, epochs=20)]

    lines = strength.markdown(rows).splitlines()[2:]

    measured = ["2 ± 0", "3 ± 0", "4 ± 0", "60.0 ± 14.1", "160 ± 0", "90.0 ± 0.0", "10", "0.50 ± 0.00", "80.0 ± 0.0"]
    assert lines[0] == f"| mnist | small_mlp | 5 | {' | '.join(measured)} |"
    assert len(lines) == 2
