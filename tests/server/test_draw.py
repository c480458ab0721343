"""Drawing fills the workspace with seed-named images, and resumes at the missing ones."""

import shutil

import pytest

from common.config import Config, FederationConfig, SynthesisConfig
from common.workspace import Workspace
from fedlmg_server import plan
from fedlmg_server.distillation import synthetic_set
from fedlmg_server.synthesis.draw import draw_client, read_scores

TINY = SynthesisConfig(
    images_per_class=3, synthesis_batch_size=4, num_inference_steps=2, noise_editing_steps=1, min_confidence=0.0
)


def images(workspace: Workspace, client: str, method: str = "fedlmg") -> dict[str, bytes]:
    folder = workspace.synthetic(client, method)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


@pytest.mark.parametrize("reduction", ["per-image", "per-batch"])
@pytest.mark.parametrize("gradient", ["full", "shortcut"])
def test_interruption_changes_no_image(backend, upload, workspace, tmp_path, reduction, gradient):
    config = SynthesisConfig(**{**TINY.__dict__, "statistics_reduction": reduction, "guidance_gradient": gradient})
    draw_client(backend, upload, workspace, config, run_seed=0)
    undisturbed = images(workspace, upload.client)
    interrupted = Workspace(tmp_path / "interrupted")
    shutil.copytree(workspace.synthetic(upload.client), interrupted.synthetic(upload.client))
    for name in list(undisturbed)[:2]:
        (interrupted.synthetic(upload.client) / name).unlink()

    draw_client(backend, upload, interrupted, config, run_seed=0)

    assert images(interrupted, upload.client) == undisturbed
    assert len(undisturbed) == 6


def test_nothing_is_drawn_twice(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)

    assert draw_client(backend, upload, workspace, TINY, run_seed=0) == 0


def test_guidance_changes_the_images(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    draw_client(backend, upload, workspace, TINY, run_seed=0, method="prompts-only")

    guided, plain = images(workspace, upload.client), images(workspace, upload.client, "prompts-only")
    assert guided.keys() == plain.keys()
    assert all(guided[name] != plain[name] for name in guided)


def test_two_shares_draw_the_whole_plan_with_the_same_images(backend, upload, workspace, tmp_path):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    shared = Workspace(tmp_path / "shared")

    draw_client(backend, upload, shared, TINY, run_seed=0, share=(0, 2))
    draw_client(backend, upload, shared, TINY, run_seed=0, share=(1, 2))

    assert images(shared, upload.client) == images(workspace, upload.client)
    assert read_scores(shared.synthetic(upload.client)).keys() == images(shared, upload.client).keys()


def test_score_cut_short_by_a_crash_is_passed_over(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    folder = workspace.synthetic(upload.client)
    whole = read_scores(folder)
    with open(folder / "scores-0.jsonl", "a") as file:
        file.write('{"file": "dog/1.p')

    assert read_scores(folder) == whole


def test_every_image_has_a_score(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)

    scores = read_scores(workspace.synthetic(upload.client))

    assert scores.keys() == images(workspace, upload.client).keys()
    assert all(0 <= score.confidence <= 1 for score in scores.values())


def test_filter_leaves_out_images_below_the_confidence(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    confidences = sorted(score.confidence for score in read_scores(workspace.synthetic(upload.client)).values())
    config = SynthesisConfig(**{**TINY.__dict__, "min_confidence": confidences[3]})

    kept = synthetic_set.load(Config(synthesis=config, federation=FederationConfig()), workspace, [upload])

    assert len(kept.labels) == 3


def test_plan_is_class_balanced_and_its_seeds_differ():
    planned = plan.drawings(0, "site-a", ["cat", "dog"], 3)

    assert [drawing.class_name for drawing in planned] == ["cat", "dog"] * 3
    assert len({drawing.seed for drawing in planned}) == 6


def test_seed_of_an_image_does_not_depend_on_the_plan():
    few, many = plan.drawings(0, "site-a", ["cat", "dog"], 2), plan.drawings(0, "site-a", ["cat", "dog"], 5)

    assert many[: len(few)] == few


def test_batches_are_of_one_size_so_that_processes_share_them_evenly():
    planned = plan.drawings(0, "site-a", ["cat", "dog"], 8)

    assert [len(batch) for batch in plan.batches(planned, 5)] == [4, 4, 4, 4]
    assert [drawing for batch in plan.batches(planned, 5) for drawing in batch] == planned
