"""Drawing fills the workspace with seed-named images, and resumes at the missing ones."""

import os
import shutil
import signal
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.config.run import Config, FederationConfig
from common.config.synthesis import SynthesisConfig
from common.models.feature_statistics import Moments
from fedlmg_server.distillation import synthetic_set
from fedlmg_server.synthesis import draw, filters, plan, scores
from fedlmg_server.synthesis.draw import draw_client
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.workspace import Workspace

TINY = SynthesisConfig(
    images_per_class=3, synthesis_batch_size=4, num_inference_steps=2, noise_editing_steps=1, min_confidence=0.0
)


def images(workspace: Workspace, client: str, method: str = "fedlmg") -> dict[str, bytes]:
    folder = workspace.synthetic(client, method)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


@pytest.mark.parametrize("gradient", ["full", "shortcut"])
def test_interruption_changes_no_image(backend, upload, workspace, tmp_path, gradient):
    config = replace(TINY, guidance_gradient=gradient)
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


def test_image_follows_the_cluster_of_its_seed_and_no_other(backend, upload, workspace, tmp_path):
    moments = {
        name: Moments(m.mean.expand(2, 2, -1), m.variance.expand(2, 2, -1)) for name, m in upload.statistics.items()
    }
    second = torch.tensor([0.0, 1.0])[:, None, None]
    moved = {name: Moments(m.mean + second, m.variance) for name, m in moments.items()}
    draw_client(backend, replace(upload, statistics=moments), workspace, TINY, run_seed=0)

    draw_client(backend, replace(upload, statistics=moved), other := Workspace(tmp_path / "moved"), TINY, run_seed=0)

    before, after = images(workspace, upload.client), images(other, upload.client)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if int(Path(name).stem) % 2 == 1}
    assert 0 < len(changed) < len(before)


def test_two_shares_draw_the_whole_plan_with_the_same_images(backend, upload, workspace, tmp_path):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    shared = Workspace(tmp_path / "shared")

    draw_client(backend, upload, shared, TINY, run_seed=0, share=(0, 2))
    draw_client(backend, upload, shared, TINY, run_seed=0, share=(1, 2))

    assert images(shared, upload.client) == images(workspace, upload.client)
    assert scores.read(shared.synthetic(upload.client)).keys() == images(shared, upload.client).keys()


def test_score_cut_short_by_a_crash_is_passed_over(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    folder = workspace.synthetic(upload.client)
    whole = scores.read(folder)
    with open(folder / "scores-0.jsonl", "a") as file:
        file.write('{"file": "dog/1.p')

    assert scores.read(folder) == whole


def test_every_image_has_a_score(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)

    found = scores.read(workspace.synthetic(upload.client))

    assert found.keys() == images(workspace, upload.client).keys()
    assert all(0 <= score.confidence <= 1 for score in found.values())


def test_filter_leaves_out_images_below_the_confidence(backend, upload, workspace):
    draw_client(backend, upload, workspace, TINY, run_seed=0)
    confidences = sorted(score.confidence for score in scores.read(workspace.synthetic(upload.client)).values())
    config = replace(TINY, min_confidence=confidences[3])

    kept = synthetic_set.load(Config(synthesis=config, federation=FederationConfig()), workspace, [upload])

    assert len(kept.labels) == 3


def test_out_of_memory_halves_the_batch_and_changes_no_image(backend, upload, workspace, tmp_path, monkeypatch):
    # Small steps: long ones make much of a batch size's rounding, where nets are untrained.
    config = replace(TINY, synthesis_batch_size=6, noise_editing_steps=0, guidance_strength=0.05)
    whole, asked = draw.draw_batch, []
    draw_client(backend, upload, ample := Workspace(tmp_path / "ample"), config, run_seed=0)

    def draw_two_at_most(backend, guidance, batch, *rest):
        asked.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return whole(backend, guidance, batch, *rest)

    monkeypatch.setattr(draw, "draw_batch", draw_two_at_most)

    draw_client(backend, upload, workspace, config, run_seed=0)

    found, undisturbed = (images(each, upload.client) for each in (workspace, ample))
    assert found.keys() == undisturbed.keys()
    for name, content in found.items():
        torch.testing.assert_close(pixels(content), pixels(undisturbed[name]), atol=2, rtol=0)
    assert asked == [6, 3, 1, 1, 1, 1, 1, 1]


def pixels(png: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(BytesIO(png))).astype(np.int16))


def test_a_polite_kill_waits_until_the_images_are_written():
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.append("killed"))

    with draw.finishing():
        os.kill(os.getpid(), signal.SIGTERM)
        arrived.append("written")

    signal.signal(signal.SIGTERM, before)
    assert arrived == ["written", "killed"]


def test_a_batch_is_whole_when_a_polite_kill_comes_with_its_first_image(backend, upload, workspace, monkeypatch):
    write = draw.write_bytes

    def killed(path: Path, content: bytes) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(path, content)

    monkeypatch.setattr(draw, "write_bytes", killed)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    with pytest.raises(SystemExit):
        draw_client(backend, upload, workspace, TINY, run_seed=0)

    signal.signal(signal.SIGTERM, before)
    assert len(images(workspace, upload.client)) == 3


def test_images_that_are_no_numbers_are_not_written(backend, upload, workspace, monkeypatch):
    monkeypatch.setattr(draw, "draw_batch", lambda _, __, batch, *rest: torch.full((len(batch), 3, 32, 32), torch.nan))

    with pytest.raises(ValueError, match="images are not finite numbers"):
        draw_client(backend, upload, workspace, TINY, run_seed=0)

    assert images(workspace, upload.client) == {}


def test_safety_checkers_verdict_is_kept_with_the_score(backend, upload, workspace, monkeypatch):
    monkeypatch.setattr(backend, "safe", lambda images: [False] * len(images))

    draw_client(backend, upload, workspace, TINY, run_seed=0)

    found = scores.read(workspace.synthetic(upload.client)).values()
    assert [score.safe for score in found] == [False] * 6


def test_unsafe_image_is_rejected_with_guidance_and_without():
    unsafe = Score("cat/1.png", "cat", confidence=1.0, agrees=True, safe=False)

    assert [filters.reason(unsafe, TINY, is_guided) for is_guided in (True, False)] == ["unsafe", "unsafe"]


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
