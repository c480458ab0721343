"""The benchmark's yardstick runs, and the engine's maths is its maths."""

import torch

from fedlmg_server.synthesis.guidance import ClassifierGuidance
from tests.bench import reference
from tests.bench.reference import ReferenceLoop


def make_loop(backend, upload) -> ReferenceLoop:
    return ReferenceLoop(backend.pipeline, upload.classifier(torch.device("cpu")), upload.preprocess, upload.statistics)


def test_reference_draws_an_image(backend, upload, monkeypatch):
    monkeypatch.setattr(reference, "NUM_INFERENCE_STEPS", 2)
    monkeypatch.setattr(reference, "NOISE_EDITING_STEPS", 1)

    image = make_loop(backend, upload).draw("cat", 0, seed=1)

    assert image.shape == (1, 3, 32, 32)
    assert 0 <= image.min() < image.max() <= 1


def test_statistics_loss_of_the_engine_is_the_reference_s_image_by_image(backend, upload):
    loop, images = make_loop(backend, upload), torch.rand(3, 3, 32, 32)
    guidance = ClassifierGuidance.of_upload(
        upload, torch.device("cpu"), classification_weight=1.0, statistics_weight=1.0, per_batch=False
    )

    together = guidance.statistics_only(torch.tensor([0, 1, 0]))(images)

    for row in range(3):
        loop.classifier(loop.preprocess(images[row : row + 1]))
        torch.testing.assert_close(together[row], loop._statistics_loss())


def test_clean_estimate_of_the_engine_is_the_reference_s(backend, upload):
    loop = make_loop(backend, upload)
    backend.scheduler.set_timesteps(3)
    x_t, t = backend.initial_noise([1]), backend.scheduler.timesteps[1]
    states, empty = backend.pipeline.encode_prompt("an image of cat", "cpu", 1, True)

    prediction = backend.predict(x_t, t, backend.condition(["cat"]), reference.GUIDANCE_SCALE)

    noise = loop._noise(x_t, t, torch.cat([empty, states]))
    torch.testing.assert_close(prediction.noise, noise)
    torch.testing.assert_close(prediction.x_0, loop._clean(x_t, noise, t))
