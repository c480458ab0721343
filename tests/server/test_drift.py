"""Models on test images that have changed since training."""

from dataclasses import replace

import pytest
import torch

from common.config import ConfigError
from common.datasets.embedded import digits
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.evaluation import drift
from fedlmg_server.evaluation.drift import Shifted
from tests.manifests import saying

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", [name for name in drift.SHIFTS if name != "none"])
def test_a_shift_changes_images_and_nothing_of_their_form(name: str):
    changed = drift.SHIFTS[name](IMAGES)

    assert (changed.shape, changed.dtype) == (IMAGES.shape, torch.uint8)
    assert (changed != IMAGES).any()


def test_new_fonts_meet_the_client_that_prints_alone():
    tests = {domain: digits.load(domain)["test"] for domain in ("mnist", "printed")}

    met = {shift: of_clients for shift, of_clients in drift.shifted(tests) if shift in drift.PRINTED}

    assert [list(of_clients) for of_clients in met.values()] == [["printed"], ["printed"]]
    assert torch.equal(met["printed alone"]["printed"].images, tests["printed"].images)
    assert not torch.equal(met["printed alone, new fonts"]["printed"].images, tests["printed"].images)


def test_new_fonts_print_the_same_digits():
    known, new = (digits.load("printed", fonts)["test"] for fonts in drift.PRINTED.values())

    assert torch.equal(known.labels, new.labels)
    assert not set(drift.PRINTED["printed alone"]) & set(drift.PRINTED["printed alone, new fonts"])


def test_noise_is_the_same_every_time():
    assert torch.equal(drift.noisy(IMAGES), drift.noisy(IMAGES))


@pytest.fixture
def few_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "SHIFTS", {name: drift.SHIFTS[name] for name in ("none", "colours inverted")})


@pytest.mark.usefixtures("few_shifts")
def test_the_model_given_back_is_measured_on_what_the_shift_makes(finished: VirtualRun):
    rows = {(row.shift, row.method): row.per_client for row in drift.measure(finished)}

    model = load_model(finished)
    test = finished.test["mnist"]
    inverted = {"mnist": replace(test, images=255 - test.images)}
    assert rows["none", "fedlmg-specific-teacher"] == finished.measure(model)
    assert rows["colours inverted", "fedlmg-specific-teacher"] == finished.measure(model, inverted)


@pytest.mark.usefixtures("few_shifts")
def test_every_method_stands_beside_every_shift(finished: VirtualRun):
    rows = list(drift.measure(finished))

    methods = {"local-all", "ensemble", "fedlmg-specific-teacher", "centralised"}
    assert {(row.shift, row.method) for row in rows} == {(shift, name) for shift in drift.SHIFTS for name in methods}


def test_a_run_without_real_images_is_refused(finished: VirtualRun):
    upload = finished.uploads[0]
    saying(upload, data="/data/of/its/own").save(finished.workspace.upload("mnist"))

    with pytest.raises(ConfigError, match="no run of virtual clients"):
        VirtualRun.reopen(finished.workspace.root, CPU)


def test_table_has_a_line_a_shift_with_its_spread():
    rows = [Shifted(seed, "blurred", "local-all", {"a": accuracy, "b": 0.5}) for seed, accuracy in ((0, 0.3), (1, 0.5))]

    assert drift.markdown(rows).splitlines()[-1] == "| blurred | 45.0 ± 7.1 |"
