"""Synthesis fills the workspace with seed-named images, and resumes at the missing ones."""

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

from common.config import Config
from common.config.synthesis import SynthesisConfig
from common.models.feature_statistics import Moments
from common.upload import Upload
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.quarantine import ClientFault
from fedlmg_server.run import Run
from fedlmg_server.synthesis import generate, scores, store
from fedlmg_server.synthesis.filters import find_reason
from fedlmg_server.synthesis.generate import generate_for_client
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.plan import plan_images, split_into_batches
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.synthesis.store import finishing
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload

TINY = SynthesisConfig(
    images_per_class=3, synthesis_batch_size=4, num_inference_steps=2, noise_editing_steps=1, min_confidence=0.0
)


def make_run(folder: Path, config: SynthesisConfig = TINY) -> Run:
    return Run(Config(synthesis=config), Workspace(folder), torch.device("cpu"))


def images(run: Run, upload: Upload, method: str = "fedlmg") -> dict[str, bytes]:
    folder = run.image_folder(upload, method)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def whole_plan(backend, tmp_path_factory) -> Path:
    run = make_run(tmp_path_factory.mktemp("whole"))
    generate_for_client(backend, run, make_upload("site-a", ["cat", "dog"]))
    return run.workspace.root


@pytest.fixture
def complete(whole_plan, tmp_path) -> Run:
    """A run with all images that `TINY` plans for `upload`."""
    return make_run(shutil.copytree(whole_plan, tmp_path / "complete"))


@pytest.mark.parametrize("preset", ["default", "authors"])
def test_interruption_changes_no_image(backend, upload, tmp_path, preset):
    config = replace(TINY, preset=preset)
    run, interrupted = make_run(tmp_path, config), make_run(tmp_path / "interrupted", config)
    generate_for_client(backend, run, upload)
    undisturbed = images(run, upload)
    shutil.copytree(run.image_folder(upload), interrupted.image_folder(upload))
    for name in list(undisturbed)[:2]:
        (interrupted.image_folder(upload) / name).unlink()

    generate_for_client(backend, interrupted, upload)

    assert images(interrupted, upload) == undisturbed
    assert len(undisturbed) == 6


def test_nothing_is_generated_twice(backend, complete, upload):
    assert generate_for_client(backend, complete, upload) == 0


def test_guidance_changes_the_images(backend, complete, upload):
    generate_for_client(backend, complete, upload, method="prompts-only")

    guided, plain = images(complete, upload), images(complete, upload, "prompts-only")
    assert guided.keys() == plain.keys()
    assert len(guided) == 6
    assert [name for name in guided if guided[name] == plain[name]] == []


def test_image_follows_the_cluster_of_its_seed_and_no_other(backend, run, upload, tmp_path):
    moments = {
        name: Moments(m.mean.expand(2, 2, -1), m.variance.expand(2, 2, -1)) for name, m in upload.statistics.items()
    }
    second = torch.tensor([0.0, 1.0])[:, None, None]
    moved = {name: Moments(m.mean + second, m.variance) for name, m in moments.items()}
    generate_for_client(backend, run, replace(upload, statistics=moments))

    generate_for_client(backend, other := make_run(tmp_path / "moved"), replace(upload, statistics=moved))

    before, after = images(run, upload), images(other, upload)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if int(Path(name).stem) % 2 == 1}
    assert 0 < len(changed) < len(before)


def test_two_shares_generate_the_whole_plan_with_the_same_images(backend, run, complete, upload):
    generate_for_client(backend, run, upload, share=(0, 2))
    generate_for_client(backend, run, upload, share=(1, 2))

    assert images(run, upload) == images(complete, upload)
    assert scores.read_scores(run.image_folder(upload)).keys() == images(complete, upload).keys()


def test_score_cut_short_by_a_crash_is_passed_over(complete, upload):
    folder = complete.image_folder(upload)
    whole = scores.read_scores(folder)
    assert whole
    with open(folder / "scores-0.jsonl", "a") as file:
        file.write('{"file": "dog/1.p')

    assert scores.read_scores(folder) == whole


def test_every_image_has_a_score(complete, upload):
    found = scores.read_scores(complete.image_folder(upload))

    assert found.keys() == images(complete, upload).keys()
    confidences = [score.confidence for score in found.values()]
    assert len(confidences) == 6
    assert 0 <= min(confidences) <= max(confidences) <= 1


def test_filter_leaves_out_images_below_the_confidence(complete, upload):
    confidences = sorted(score.confidence for score in scores.read_scores(complete.image_folder(upload)).values())
    strict = make_run(complete.workspace.root, replace(TINY, min_confidence=confidences[3]))
    strict.uploads = [upload]

    kept = read_synthetic_set(strict)

    assert len(kept.labels) == 3


def test_out_of_memory_halves_the_batch_and_changes_no_image(backend, upload, tmp_path, monkeypatch):
    # Small steps: long ones make much of a batch size's rounding, where nets are untrained.
    config = replace(TINY, synthesis_batch_size=6, noise_editing_steps=0, guidance_strength=0.05)
    whole, asked = generate.generate_batch, []
    generate_for_client(backend, ample := make_run(tmp_path / "ample", config), upload)

    def generate_two_at_most(backend, guidance, batch, *rest):
        asked.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return whole(backend, guidance, batch, *rest)

    monkeypatch.setattr(generate, "generate_batch", generate_two_at_most)

    generate_for_client(backend, run := make_run(tmp_path / "short", config), upload)

    found, undisturbed = (images(each, upload) for each in (run, ample))
    assert found.keys() == undisturbed.keys()
    assert len(found) == 6
    for name, content in found.items():
        torch.testing.assert_close(pixels(content), pixels(undisturbed[name]), atol=2, rtol=0)
    assert asked == [6, 3, 1, 1, 1, 1, 1, 1]


def pixels(png: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(BytesIO(png))).astype(np.int16))


def test_a_polite_kill_waits_until_the_images_are_written():
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.append("killed"))

    with finishing():
        os.kill(os.getpid(), signal.SIGTERM)
        arrived.append("written")

    signal.signal(signal.SIGTERM, before)
    assert arrived == ["written", "killed"]


def test_a_batch_is_whole_when_a_polite_kill_comes_with_its_first_image(backend, run, upload, monkeypatch):
    write = store.write_bytes

    def killed(path: Path, content: bytes) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(path, content)

    monkeypatch.setattr(store, "write_bytes", killed)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    with pytest.raises(SystemExit):
        generate_for_client(backend, run, upload)

    signal.signal(signal.SIGTERM, before)
    assert len(images(run, upload)) == 3


def test_a_client_whose_first_images_are_no_numbers_is_charged_and_drawn_for_no_more(backend, run, upload, monkeypatch):
    monkeypatch.setattr(
        generate, "generate_batch", lambda _, __, batch, *rest: torch.full((len(batch), 3, 32, 32), torch.nan)
    )

    with pytest.raises(ClientFault, match="client 'site-a': its first 3 images are all rejected, as not finite"):
        generate_for_client(backend, run, upload)

    assert len(images(run, upload)) == 3


def test_an_image_that_its_classifier_cannot_read_is_rejected(backend, run, upload, monkeypatch):
    classify = ClassifierGuidance.of_upload

    def of_upload(*asked, **weights) -> ClassifierGuidance:
        guidance = classify(*asked, **weights)
        guidance.classifier.register_forward_hook(
            lambda _, inputs, logits: logits if inputs[0].requires_grad else logits * torch.nan
        )
        return guidance

    monkeypatch.setattr(ClassifierGuidance, "of_upload", of_upload)

    with pytest.raises(ClientFault, match="not finite"):
        generate_for_client(backend, run, upload)

    found = scores.read_scores(run.image_folder(upload)).values()
    assert {(score.finite, score.confidence, find_reason(score, 0.0)) for score in found} == {(False, 0, "not-finite")}


def test_safety_checkers_answer_is_kept_with_the_score(backend, run, upload, monkeypatch):
    monkeypatch.setattr(backend, "check_safety", lambda images: [False] * len(images))

    generate_for_client(backend, run, upload)

    found = scores.read_scores(run.image_folder(upload)).values()
    assert [score.safe for score in found] == [False] * 6


def test_unsafe_image_is_rejected_with_guidance_and_without():
    unsafe = Score("cat/1.png", "cat", confidence=1.0, agrees=True, safe=False)

    assert [find_reason(unsafe, 0.0, is_guided) for is_guided in (True, False)] == ["unsafe", "unsafe"]


def test_plan_is_class_balanced_and_its_seeds_differ():
    planned = plan_images(0, "site-a", ["cat", "dog"], 3)

    assert [planned_image.class_name for planned_image in planned] == ["cat", "dog"] * 3
    assert len({planned_image.seed for planned_image in planned}) == 6


def test_seed_of_an_image_does_not_depend_on_the_plan():
    few, many = plan_images(0, "site-a", ["cat", "dog"], 2), plan_images(0, "site-a", ["cat", "dog"], 5)

    assert many[: len(few)] == few


def test_slashes_in_names_do_not_make_two_clients_share_a_seed():
    one, other = plan_images(0, "a/b", ["c"], 5), plan_images(0, "a", ["b/c"], 5)

    assert not {image.seed for image in one} & {image.seed for image in other}


def test_seeds_of_names_without_a_slash_stay_for_good():
    assert [image.seed for image in plan_images(3, "site-a", ["cat"], 2)] == [175384373915970, 237668171468038]


def test_batches_are_of_one_size_so_that_processes_share_them_evenly():
    planned = plan_images(0, "site-a", ["cat", "dog"], 8)

    assert [len(batch) for batch in split_into_batches(planned, 5)] == [4, 4, 4, 4]
    assert [image for batch in split_into_batches(planned, 5) for image in batch] == planned
