"""The benchmark's yardstick runs, and the engine's maths is its maths."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from common.config import Config
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.diffusion.noise_schedule import make_scheduler
from fedlmg_server.synthesis.generate import generate_batch, guide_by
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.plan import PlannedImage
from tests.bench.reference import GUIDANCE_SCALE, ReferenceLoop


def make_loop(backend, upload) -> ReferenceLoop:
    return ReferenceLoop(backend.pipeline, upload.classifier(torch.device("cpu")), upload.preprocess, upload.statistics)


def test_preset_authors_draws_the_reference_s_image(backend, upload):
    steps = {"num_inference_steps": 3, "noise_editing_steps": 3}
    config = replace(Config.from_run_config({"preset": "authors"}).synthesis, **steps)
    image = PlannedImage("dog", 1)
    exact = LatentBackend(backend.family, make_scheduler(backend.pipeline.scheduler.config, config.sampler, flow=False))
    generator = torch.Generator().manual_seed(~image.seed & (2**63 - 1))

    theirs = make_loop(backend, upload).draw("dog", 1, exact.initial_noise([image.seed]), generator, **steps)
    guidance = guide_by(upload, config, torch.device("cpu"))
    ours = generate_batch(exact, guidance, [image], upload.class_names, config)

    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_statistics_loss_of_the_engine_is_the_reference_s_image_by_image(backend, upload):
    loop, images = make_loop(backend, upload), torch.rand(3, 3, 32, 32)
    guidance = ClassifierGuidance.of_upload(
        upload, torch.device("cpu"), classification_weight=1.0, statistics_weight=1.0
    )

    together = guidance.statistics_only(torch.tensor([0, 1, 0]))(images)

    for row in range(3):
        loop.classifier(loop.preprocess(images[row : row + 1]))
        torch.testing.assert_close(together[row], loop._statistics_loss())


def test_clean_estimate_of_the_engine_is_the_reference_s(backend, upload):
    loop = make_loop(backend, upload)
    backend.scheduler.set_timesteps(3)
    x_t, index, t = backend.initial_noise([1]), 1, backend.scheduler.timesteps[1]
    states, empty = backend.pipeline.encode_prompt("an image of cat", "cpu", 1, True)

    prediction = backend.predict(x_t, index, backend.condition(["cat"]), GUIDANCE_SCALE)

    noise = loop._noise(x_t, t, torch.cat([empty, states]))
    torch.testing.assert_close(prediction.noise, noise)
    torch.testing.assert_close(prediction.x_0, loop._clean(x_t, noise, t))


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_anywhere_on_a_tiny_pipeline():
    command = [sys.executable, "-m", "tests.bench.bench_gpu", "--tiny", "--batch", "2"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["ratio"]) == {"reference", "authors", "default", "fast"}
    assert min(found["tflops"] for found in result["presets"].values()) > 0
