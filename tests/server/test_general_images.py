"""General images: where they come from, which classes they have, and what is told."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image

from common.config import Config
from common.datasets.embedded import registry
from common.storage.caches import cache_root
from fedlmg_server.general import embedded, unguided
from fedlmg_server.general.images import balanced_rows, general_class_names, load_general_images, summarise
from fedlmg_server.general.unguided import Plan
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload

CPU = torch.device("cpu")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A run whose classes are fixed as digits 0, 1 and 2, or as given."""

    def make(class_names: tuple[str, ...] = ("0", "1", "2"), **changes: object) -> Run:
        settings = {"workspace": str(tmp_path / "run"), "num-general-images": 60, "image-size": 16}
        config = Config.from_run_config(settings | {key.replace("_", "-"): value for key, value in changes.items()})
        workspace = Workspace.open(config, {})
        if class_names:
            workspace.fix_class_names(list(class_names))
        return Run(config, workspace, CPU)

    return make


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder of 20 grey images each of `One`, `two` and `three`."""
    for number, name in enumerate(["One", "two", "three"], 1):
        (tmp_path / "public" / name).mkdir(parents=True)
        for shade in range(20):
            save_image(torch.full((3, 8, 8), number / 4 + shade / 1000), tmp_path / "public" / name / f"{shade}.png")
    return tmp_path / "public"


@pytest.fixture
def pipeline(pipeline_folder: Path) -> str:
    return str(pipeline_folder)


def test_workspace_keeps_where_general_images_come_from(make_run, public: Path):
    run = make_run(("one", "two"), public_images=str(public))

    before, images = summarise(run), load_general_images(run)

    assert before is None
    assert summarise(run) == {"source": "public", "num_images": len(images.train)}


def test_embedded_public_images_are_those_of_the_run_s_classes(make_run):
    run, classes = make_run(("2", "7")), registry.find_dataset("digits")
    made = classes.make_public_images(60, 0)

    images = load_general_images(run)

    kept = made.labels[(made.labels == 2) | (made.labels == 7)]
    assert (images.source, images.train.images.shape[1:]) == ("public", (3, 16, 16))
    assert torch.equal(images.train.labels, (kept == 7).long())


def test_embedded_public_images_are_made_once(make_run):
    first = load_general_images(make_run())
    files = set(cached_images())

    assert load_general_images(make_run()).checksum == first.checksum
    assert set(cached_images()) == files


def test_other_code_makes_other_images(make_run, monkeypatch: pytest.MonkeyPatch):
    load_general_images(make_run())
    monkeypatch.setattr(embedded, "_source_checksum", lambda: "other code")
    files = set(cached_images())

    load_general_images(make_run())

    assert len(set(cached_images()) - files) == 2


def cached_images() -> list[Path]:
    return list((cache_root() / "general" / "images").glob("*.safetensors"))


def test_classes_of_a_public_folder_are_found_by_name(make_run, public: Path):
    images = load_general_images(make_run(("one", "two", "three"), public_images=str(public)))

    kept = images.train.read()
    shades = [kept.images[kept.labels == label].float().mean().item() for label in range(3)]
    assert shades == pytest.approx([255 / 4, 255 / 2, 255 * 3 / 4], rel=0.1)
    assert len(images.held_out) == 3 * 6


def test_classes_that_a_public_folder_lacks_or_that_no_client_has_are_told(make_run, public: Path):
    images = load_general_images(make_run(("one", "two", "four"), public_images=str(public)))

    assert images.train.labels.unique().tolist() == [0, 1]
    assert images.notes == (
        "public images of classes that no client has are ignored: 'three'",
        "there are no public images of 'four': the general models do not learn these classes",
    )


def test_a_public_folder_gives_no_more_images_of_a_class_than_its_share(make_run, public: Path):
    run = make_run(("one", "two", "three"), public_images=str(public), num_general_images=15)

    assert torch.bincount(load_general_images(run).train.labels).tolist() == [5, 5, 5]


def test_classes_are_the_uploads_where_none_are_fixed(make_run):
    run = make_run(())
    make_upload("a", ["3", "1"], "small_mlp").save(run.workspace.upload("a"))

    assert general_class_names(run) == ["1", "3"]


def test_balanced_rows_take_as_many_of_every_class_as_there_are():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 20)

    rows = balanced_rows(labels, 23, seed=0)

    assert torch.bincount(labels[rows]).tolist() == [10, 3, 10]


def generated(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.workspace.general.glob("unguided/*/batch-*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["unguided", "public"])
def test_unguided_images_of_every_class_where_asked_for_or_nothing_else_is_there(make_run, pipeline: str, asked: str):
    keys = {"diffusion-model": pipeline, "num-inference-steps": 1, "synthesis-batch-size": 8}
    keys |= {"general-images": asked} | ({"dataset": ""} if asked == "public" else {})

    images = load_general_images(make_run(("cat", "dog"), num_general_images=20, **keys))

    assert images.source == "unguided"
    assert torch.bincount(images.train.labels).tolist() == [9, 9]
    assert torch.bincount(images.held_out.labels).tolist() == [1, 1]


@pytest.mark.slow
def test_a_killed_process_leaves_the_same_unguided_images_in_the_end(make_run, pipeline: str):
    keys = {"diffusion-model": pipeline, "num-inference-steps": 2, "synthesis-batch-size": 2, "dataset": ""}
    run = make_run(("cat", "dog"), num_general_images=12, **keys)
    load_general_images(run)
    undisturbed = generated(run)
    for path in run.workspace.general.glob("unguided/*/batch-*"):
        path.unlink()
    folder = Plan(run, ["cat", "dog"]).folder
    process = subprocess.Popen([sys.executable, "-m", unguided.MODULE, str(run.workspace.root), str(folder)])
    while not generated(run):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    load_general_images(run)

    assert generated(run) == undisturbed


def test_a_client_that_comes_late_changes_nothing_of_the_unguided_images(make_run):
    keys = {"general_images": "unguided", "num_general_images": 0, "images_per_class": 10}
    begun = unguided.Plan(make_run(num_clients=2, **keys), ["dark", "bright"])
    begun.keep()

    later = unguided.Plan(make_run(num_clients=3, **keys), ["dark", "bright"])

    assert later.batches == begun.batches


def test_unguided_images_cost_no_more_than_guided_ones(make_run):
    run = make_run(general_images="unguided", num_general_images=0, images_per_class=2, num_clients=3, min_clients=1)

    plan = unguided.Plan(run, ["dark", "bright"])

    assert sum(map(len, plan.batches)) == unguided.CHEAPER * 2 * 3 * 2
