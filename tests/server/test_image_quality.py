"""Synthetic images against real ones: figures that are known by hand, and sets that are real, or noise."""

import csv
from dataclasses import replace
from io import StringIO

import pytest
import torch

from common.datasets.embedded.digits import CLASS_NAMES
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.evaluation import evaluation_classifier, image_quality
from fedlmg_server.evaluation.image_quality import Measured
from fedlmg_server.report import markdown
from tests.server.conftest import make_finished_run

CPU = torch.device("cpu")
ROW = Measured(0, "guided", "mnist", "all", 20, 0.9, 0.8, 7.0, 0.01, 0.5, 0.6, 0.7, 0.8)


def test_overlap_is_what_it_is_by_hand():
    real, generated = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [10.0]])

    found = evaluation_classifier.overlap(real, generated, nearest=1)

    # Surroundings of 1, 1 and 2 around the real ones hold 0.5 twice; 9.5 around the generated ones hold all real ones.
    assert (found.precision, found.density, found.coverage, found.recall) == (0.5, 1.0, pytest.approx(2 / 3), 1.0)


def test_a_set_of_one_image_is_precise_but_covers_little():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 8, generator=generator)
    generated = 1e-3 * torch.randn(50, 8, generator=generator)

    found = evaluation_classifier.overlap(real, generated)

    assert found.precision == 1.0
    assert found.recall < 0.05 < found.coverage < 0.6


def test_kernel_distance_is_none_between_sets_of_a_kind_and_grows_with_the_shift():
    generator = torch.Generator().manual_seed(0)
    real, alike, off = (torch.randn(300, 8, generator=generator) + shift for shift in (0.0, 0.0, 1.0))

    near, far = (evaluation_classifier.kernel_distance(real, generated)[0] for generated in (alike, off))

    assert abs(near) < 0.1 * far


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Measured]:
    """Of a finished run, read by a classifier that was trained for a short time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_quality, "CLASSIFIER_EPOCHS", 2)
        return list(image_quality.measure(make_finished_run(tmp_path_factory.mktemp("finished"))))


def test_real_images_measure_as_real_and_noise_does_not(rows: list[Measured]):
    guided, unguided, real = (row for row in rows if row.class_name == "all")
    assert [guided.images, unguided.images, real.images] == ["guided", "unguided", "real"]
    assert abs(guided.kid) < 0.2 * unguided.kid
    assert guided.precision > 0.8 > 0.2 > unguided.precision


def test_every_class_has_its_row(rows: list[Measured]):
    assert [row.class_name for row in rows if row.images == "guided"] == ["all", *CLASS_NAMES]
    assert {row.num_images for row in rows if row.images == "guided"} == {80, 8}


def test_statistics_gap_is_the_loss_that_guides(finished: VirtualRun):
    upload = finished.uploads[0]
    test = finished.test["mnist"]

    gaps = image_quality.statistics_gaps(upload, test.images[:3], test.labels[:3])
    alone = [
        image_quality.statistics_gaps(upload, test.images[row : row + 1], test.labels[row : row + 1])
        for row in range(3)
    ]

    assert torch.allclose(gaps, torch.cat(alone), rtol=1e-4)
    assert len(gaps) == 3
    assert gaps.min() > 0


def test_table_has_a_line_a_client_and_set_with_its_spread():
    rows = [ROW, replace(ROW, seed=1, read_as_asked=0.7, kid=None, precision=None), replace(ROW, class_name="3")]

    line = image_quality.markdown(rows).splitlines()[-1]

    measured = ["80.0 ± 14.1", "80.0 ± 0.0", "7.0 ± 0.0", "10", "0.50", "0.60 ± 0.00", "0.70 ± 0.00", "0.80 ± 0.00"]
    assert line == f"| mnist | guided | {' | '.join(measured)} |"


def test_csv_keeps_every_class():
    found = list(csv.DictReader(StringIO(markdown.as_csv(Measured, [ROW, replace(ROW, class_name="3", kid=None)]))))

    assert [(row["class_name"], row["kid"]) for row in found] == [("all", "0.01"), ("3", "")]
