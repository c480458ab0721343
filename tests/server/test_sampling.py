"""Guided sampling is the paper's, image by image."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from common.config import Config
from common.config.synthesis import OURS
from fedlmg_server.diffusion.backend import straight_through_clamp
from fedlmg_server.diffusion.families.stable_diffusion import Adapter
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.diffusion.noise_schedule import make_scheduler
from fedlmg_server.diffusion.prediction import from_model_output, to_model_output, weights
from fedlmg_server.diffusion.pretraining import tiny_pipeline
from fedlmg_server.synthesis.generate import generate_batch, guide_by
from fedlmg_server.synthesis.guidance import gradient, unit
from fedlmg_server.synthesis.noise_editing import edit_noise
from fedlmg_server.synthesis.plan import PlannedImage
from fedlmg_server.synthesis.sampler import SamplingSettings, guide, is_guided, sample

SEEDS = [11, 12, 13, 14]
CLASSES = ["cat", "dog", "cat", "dog"]


def make_settings(**changes) -> SamplingSettings:
    settings = dict(num_inference_steps=3, guidance_scale=3.0, guidance_strength=0.3, guided_until=1.0)
    method = {key: changes.pop(key) for key in list(changes) if hasattr(OURS, key)}
    return SamplingSettings(**{**settings, "method": replace(OURS, **method), **changes})


@pytest.fixture
def start(backend):
    backend.scheduler.set_timesteps(3)
    return backend.initial_noise(SEEDS), backend.condition(CLASSES)


TARGETS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_model_output_and_prediction_are_inverse(kind):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if kind == "flow" else DDIMScheduler(prediction_type=kind)
    scheduler.set_timesteps(3)
    x_t, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)

    prediction = from_model_output(scheduler, output, x_t, 1)

    signal, sigma = weights(scheduler, 1)
    torch.testing.assert_close(signal * prediction.x_0 + sigma * prediction.noise, x_t, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(to_model_output(scheduler, prediction, 1), output, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_guided_step_equals_a_float64_derivation_from_the_paper(backend, guidance, start, kind):
    x_t, condition = start
    backend = copy.copy(backend)
    backend.scheduler = DDIMScheduler.from_config(backend.scheduler.config, prediction_type=kind)
    backend.scheduler.set_timesteps(3)
    t = backend.scheduler.timesteps[1]
    abar = backend.scheduler.alphas_cumprod[int(t)].double()
    exact = copy.deepcopy(backend)
    for part in (exact.pipeline.unet, exact.pipeline.vae):
        part.double()
    classifier = copy.deepcopy(guidance.classifier).double()
    moments = {}
    for name, layer in classifier.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: moments.update({name: inputs[0]}))

    x = x_t.double().requires_grad_()
    without, with_prompt = exact.pipeline.unet(
        torch.cat([x, x]), t, condition["encoder_hidden_states"].double()
    ).sample.chunk(2)
    output = without + 3.0 * (with_prompt - without)
    noise = output if kind == "epsilon" else abar.sqrt() * output + (1 - abar).sqrt() * x
    x_0 = (x - (1 - abar).sqrt() * noise) / abar.sqrt()
    decoded = exact.pipeline.vae.decode(x_0 / exact.pipeline.vae.config.scaling_factor).sample / 2 + 0.5
    images = decoded + (decoded.clamp(0, 1) - decoded).detach()
    logits = classifier((images - 0.5) / 0.25)
    loss = torch.nn.functional.cross_entropy(logits, TARGETS, reduction="sum")
    for name, features in moments.items():
        target = guidance.target_statistics[name]
        for image in features:
            loss = loss + 0.1 * (image.mean((1, 2)) - target.mean.double()).norm()
            loss = loss + 0.1 * (image.var((1, 2), correction=0) - target.variance.double()).norm()
    (g,) = torch.autograd.grad(loss, x)
    lengths = noise.flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)
    expected_noise = noise + 0.3 * lengths[:, None, None, None] * g
    expected_x_0 = (x - (1 - abar).sqrt() * expected_noise) / abar.sqrt()

    settings = make_settings(through_denoiser=True)
    _, step = guide(backend, x_t, 1, condition, settings, guidance.full_loss(TARGETS))

    torch.testing.assert_close(step.noise.double(), expected_noise.detach(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(step.x_0.double(), expected_x_0.detach(), atol=1e-3, rtol=1e-3)


def gradient_at(backend, guidance, x_t, condition) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss's gradient through the denoiser, and the unguided noise estimate."""
    x_t = x_t.clone().requires_grad_()
    prediction = backend.predict(x_t, 1, condition, 3.0)
    g = gradient(guidance.full_loss(TARGETS)(backend.decode(prediction.x_0)), x_t)
    return g, prediction.noise.detach()


def test_raw_step_is_equation_10(backend, guidance, start):
    x_t, condition = start
    settings = make_settings(through_denoiser=True, raw_step=True, guidance_strength=1.0)

    _, step = guide(backend, x_t, 1, condition, settings, guidance.full_loss(TARGETS))

    g, noise = gradient_at(backend, guidance, x_t, condition)
    torch.testing.assert_close(step.noise, noise + weights(backend.scheduler, 1)[1] * g)


def test_two_raw_passes_move_the_latent_and_ask_again(backend, guidance, start):
    x_t, condition = start
    settings = make_settings(through_denoiser=True, raw_step=True, guidance_strength=1.0, denoiser_passes=2)

    moved, step = guide(backend, x_t, 1, condition, settings, guidance.full_loss(TARGETS))

    g, _ = gradient_at(backend, guidance, x_t, condition)
    with torch.no_grad():
        again = backend.predict(x_t - g, 1, condition, 3.0)
    torch.testing.assert_close(moved, x_t - g)
    torch.testing.assert_close(step.noise, again.noise)


@pytest.mark.parametrize("denoiser_passes", [1, 2])
@pytest.mark.parametrize("through_denoiser", [True, False])
def test_guided_step_lowers_the_loss(backend, guidance, start, through_denoiser, denoiser_passes):
    x_t, condition = start
    loss = guidance.full_loss(TARGETS)
    settings = make_settings(through_denoiser=through_denoiser, guidance_strength=0.02, denoiser_passes=denoiser_passes)
    with torch.no_grad():
        plain = loss(backend.decode(backend.predict(x_t, 1, condition, 3.0).x_0))

    _, prediction = guide(backend, x_t, 1, condition, settings, loss)

    with torch.no_grad():
        guided = loss(backend.decode(prediction.x_0))

    assert (guided < plain).all()


def test_gradient_of_a_batch_equals_those_of_its_images_alone(backend, guidance, start):
    x_T, _ = start

    def loss_gradient(rows: list[int]) -> torch.Tensor:
        x = x_T[rows].clone().requires_grad_()
        x_0 = backend.predict(x, 0, backend.condition([CLASSES[row] for row in rows]), 3.0).x_0
        return gradient(guidance.full_loss(TARGETS[rows])(backend.decode(x_0)), x)

    together = loss_gradient([0, 1, 2, 3])

    alone = torch.cat([loss_gradient([row]) for row in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-3)


def test_image_does_not_depend_on_its_batch(backend, guidance, start):
    x_T, condition = start
    together = sample(backend, x_T, condition, make_settings(), guidance.full_loss(TARGETS))

    alone = sample(
        backend, x_T[2:3], backend.condition(CLASSES[2:3]), make_settings(), guidance.full_loss(TARGETS[2:3])
    )

    torch.testing.assert_close(alone[0], together[2], atol=2 / 255, rtol=0)


def test_initial_noise_of_a_seed_is_the_same_in_any_batch(backend):
    torch.testing.assert_close(backend.initial_noise(SEEDS)[3:], backend.initial_noise([14]), atol=0, rtol=0)


def test_noise_editing_lowers_the_statistics_loss_and_keeps_the_norm(backend, guidance, start):
    x_T, condition = start
    loss = guidance.statistics_only(torch.zeros(len(x_T), dtype=torch.long))

    def statistics_at(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return loss(backend.decode(backend.predict(x, 0, condition, 1).x_0))

    edited = edit_noise(backend, x_T, condition, loss, num_steps=3, strength=0.02)

    assert (statistics_at(edited) < statistics_at(x_T)).all()
    torch.testing.assert_close(edited.flatten(1).norm(dim=1), x_T.flatten(1).norm(dim=1))


def test_noise_editing_steps_are_a_share_of_the_noise_s_own_length(backend, guidance, start):
    x_T, condition = start
    loss = guidance.statistics_only(TARGETS)

    edited = edit_noise(backend, x_T, condition, loss, num_steps=1, strength=0.1)

    x = x_T.clone().requires_grad_()
    g = gradient(loss(backend.decode(backend.predict(x, 0, condition, 1).x_0)), x)
    moved = x_T / x_T.flatten(1).norm(dim=1)[:, None, None, None] - 0.1 * unit(g)
    assert torch.nn.functional.cosine_similarity(edited.flatten(1), moved.flatten(1)).min() > 1 - 1e-5


def test_guidance_leaves_no_hook_and_moves_no_weight(backend, guidance, start):
    x_T, condition = start
    modules = [guidance.classifier, backend.pipeline.unet, backend.pipeline.vae]
    before = [{name: tensor.clone() for name, tensor in module.state_dict().items()} for module in modules]

    sample(backend, x_T, condition, make_settings(through_denoiser=True), guidance.full_loss(TARGETS))

    for module, state in zip(modules, before, strict=True):
        assert [part for part in module.modules() if part._forward_pre_hooks or part._forward_hooks] == []
        torch.testing.assert_close(dict(module.state_dict()), state, rtol=0, atol=0)
        assert {parameter.grad for parameter in module.parameters()} == {None}


def test_guidance_of_no_step_is_plain_sampling(backend, guidance, start):
    x_T, condition = start

    guided = sample(backend, x_T, condition, make_settings(guided_until=0.0), guidance.full_loss(TARGETS))

    assert torch.equal(guided, sample(backend, x_T, condition, make_settings()))


@pytest.mark.parametrize(
    ("preset", "sampler"),
    [
        ("default", "ddim"),
        pytest.param("authors", "ddpm", marks=pytest.mark.slow),
        pytest.param("default", "dpm-solver++", marks=pytest.mark.slow),
        pytest.param("default", "lcm", marks=pytest.mark.slow),
    ],
)
def test_drawing_never_waits_for_the_device(backend, upload, preset, sampler):
    """A device without numbers: whoever asks for one, as `item`, `cpu` and indexing by its tensors do, is told off."""
    settings = {"preset": preset, "num-inference-steps": 2, "noise-editing-steps": 1}
    nowhere, config = torch.device("meta"), Config.from_run_config(settings).synthesis
    pipeline = copy.deepcopy(backend.pipeline).to(nowhere)
    schedule = make_scheduler(pipeline.scheduler.config, sampler, flow=False)
    distant = LatentBackend(Adapter(pipeline), schedule)
    guidance, trace = guide_by(upload, config, nowhere), {}

    images = generate_batch(
        distant, guidance, [PlannedImage("cat", 1), PlannedImage("dog", 2)], upload.class_names, config, trace
    )

    assert images.shape == (2, 3, 32, 32)
    assert {kind: len(steps) for kind, steps in trace.items()}["noise editing"] == config.noise_editing_steps


def test_saturated_pixels_keep_their_gradient():
    images = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)

    clamped = straight_through_clamp(images)

    assert clamped.tolist() == [0.0, 0.5, 1.0]
    assert torch.autograd.grad(clamped.sum(), images)[0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("num_steps", "guided_until", "guided"), [(8, 0.54, 6), (6, 0.38, 3), (20, 0.54, 14), (50, 1, 50)]
)
def test_guidance_ends_at_a_noise_level(num_steps, guided_until, guided):
    scheduler = DDIMScheduler.from_config(tiny_pipeline.build_pipeline(channels=(16, 32)).scheduler.config)
    scheduler.set_timesteps(num_steps)
    settings = make_settings(guided_until=guided_until)

    steps = [is_guided(scheduler, index, settings) for index in range(num_steps)]

    assert steps == [True] * guided + [False] * (num_steps - guided)
