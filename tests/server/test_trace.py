"""Losses over the steps: noted on the way, without changing an image."""

from pathlib import Path

import pytest
import torch

from common.config import Config
from common.config.synthesis import SynthesisConfig
from common.upload import Upload
from fedlmg_server.report import generated
from fedlmg_server.run import Run
from fedlmg_server.synthesis import traces
from fedlmg_server.synthesis.generate import generate_batch, generate_for_client, guide_by
from fedlmg_server.synthesis.plan import plan_images
from fedlmg_server.synthesis.traces import newest_losses
from fedlmg_server.workspace import Workspace

CONFIG = SynthesisConfig(
    images_per_class=1, num_inference_steps=4, guided_until=0.38, noise_editing_steps=1, synthesis_batch_size=2
)


def test_noting_the_losses_changes_no_image(backend, upload: Upload):
    guidance = guide_by(upload, CONFIG, backend.device)
    batch = plan_images(0, upload.client, upload.class_names, 1)

    plain = generate_batch(backend, guidance, batch, upload.class_names, CONFIG)
    noted = generate_batch(backend, guidance, batch, upload.class_names, CONFIG, {})

    assert torch.equal(plain, noted)


def test_every_guided_step_has_its_losses(backend, upload: Upload, tmp_path: Path):
    run = Run(Config(synthesis=CONFIG), Workspace(tmp_path))

    generate_for_client(backend, run, upload)

    curves = generated.loss_curves(run.image_folder(upload))
    assert [step for step, _ in curves["statistics"]] == [1, 2, 3]
    assert [step for step, _ in curves["classification"]] == [2, 3]


def test_curves_are_weighted_by_the_batches_sizes(tmp_path: Path):
    lines = '{"images": 3, "classification": [1.0]}\n{"images": 1, "classification": [5.0]}\n{"images": 1, "class'
    (tmp_path / "losses-0.jsonl").write_text(lines)

    assert generated.loss_curves(tmp_path)["classification"] == [(1, 2.0)]


def test_newest_losses_are_those_of_the_last_step(backend, upload: Upload, tmp_path: Path):
    run = Run(Config(synthesis=CONFIG), Workspace(tmp_path))
    generate_for_client(backend, run, upload)

    run.uploads = [upload]
    newest = newest_losses(run, "fedlmg", [run.image_folder(upload) / f"losses-{rank}.jsonl" for rank in (0, 1)])

    (batch,) = traces.read_losses(run.image_folder(upload))
    assert newest[upload.client]["classification"] == pytest.approx(batch["classification"][-1])


def test_what_is_rejected_is_not_kept(backend, upload: Upload, tmp_path: Path):
    run = Run(Config(synthesis=CONFIG), Workspace(tmp_path))
    generate_for_client(backend, run, upload)

    counted = generated.summary(run.image_folder(upload), {upload.class_names[0]: {"unsafe": 1}})

    assert (counted.generated, counted.kept) == (2, 1)
