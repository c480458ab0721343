"""Flow matching goes through the same guided sampling: the maths, the schedules, and the end at pure noise."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from common.config.synthesis import OURS, SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.diffusion.noise_schedule import make_scheduler, set_timesteps
from fedlmg_server.diffusion.prediction import Prediction, is_flow, move, noise_level, weights
from fedlmg_server.synthesis.guidance import gradient
from fedlmg_server.synthesis.sampler import SamplingSettings, guide, sample

SEEDS, CLASSES, TARGETS = [11, 12], ["cat", "dog"], torch.tensor([0, 1])
FLOW = {"shift": 3.0, "num_train_timesteps": 1000}
STEPS = 4


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A loss without kinks, so that no rounding grows."""
    return images.pow(2).sum((1, 2, 3))


def settings(**changes) -> SamplingSettings:
    return SamplingSettings(STEPS, 3.0, 0.3, 1.0, replace(OURS, **changes))


class AsFlow:
    """A variance-preserving backend as a flow: x_s / sqrt((1 - s)^2 + s^2) is its latent at the same ratio of signal to
    noise, s = sigma / (signal + sigma)."""

    def __init__(self, inner: LatentBackend):
        self.inner, self.device = inner, inner.device
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        levels = [noise_level(inner.scheduler, index) for index in range(len(inner.scheduler.timesteps))]
        self.scheduler.set_timesteps(sigmas=np.array(levels))
        last = inner.scheduler.final_alpha_cumprod
        self.scheduler.sigmas[-1] = (1 - last).sqrt() / (last.sqrt() + (1 - last).sqrt())
        self.decode, self.decode_for_guidance = inner.decode, inner.decode_for_guidance

    def predict(self, x_t: torch.Tensor, index: int, condition: dict, guidance_scale: float) -> Prediction:
        signal, sigma = weights(self.scheduler, index)
        return self.inner.predict(x_t / (signal**2 + sigma**2).sqrt(), index, condition, guidance_scale)


@pytest.fixture
def walked(backend):
    backend = copy.copy(backend)
    backend.scheduler = DDIMScheduler.from_config(backend.scheduler.config)
    backend.set_timesteps(STEPS)
    return backend, backend.initial_noise(SEEDS), backend.condition(CLASSES)


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_model_drawn_as_a_flow_draws_its_own_images(walked, passes):
    """A change of variables changes no image: unguided, and guided with one pass of the denoiser and with two."""
    backend, x_T, condition = walked
    flow = AsFlow(backend)
    signal, sigma = weights(flow.scheduler, 0)
    loss = brightness if passes else None
    # DDIM ends at abar = final_alpha_cumprod, so both results are latents of the same small noise.
    own_end = backend.scheduler.final_alpha_cumprod
    flow_end = flow.scheduler.sigmas[-1]
    flow.decode = lambda x: backend.decode(x / ((1 - flow_end) ** 2 + flow_end**2).sqrt())

    own = sample(backend, x_T, condition, settings(denoiser_passes=max(passes, 1)), loss)
    x_1 = x_T * (signal**2 + sigma**2).sqrt()
    drawn = sample(flow, x_1, condition, settings(denoiser_passes=max(passes, 1)), loss)

    assert own_end < 1
    torch.testing.assert_close(drawn, own, atol=2e-4, rtol=0)


def test_guided_step_of_a_flow_equals_a_float64_derivation(walked):
    backend, x_s, condition = walked
    backend.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    backend.set_timesteps(STEPS)
    exact = copy.deepcopy(backend.pipeline)
    for part in (exact.unet, exact.vae):
        part.double()
    s = backend.scheduler.sigmas[2].double()

    x, t = x_s.double(), backend.scheduler.timesteps[2].double()
    states = condition["encoder_hidden_states"].double()
    without, given = exact.unet(torch.cat([x, x]), t, states).sample.chunk(2)
    v = without + 3.0 * (given - without)
    x_0, noise = (x - s * v).detach().requires_grad_(), (x + (1 - s) * v).detach()
    decoded = exact.vae.decode(x_0 / exact.vae.config.scaling_factor).sample / 2 + 0.5
    loss = brightness(decoded + (decoded.clamp(0, 1) - decoded).detach())
    g = gradient(loss, x_0)
    lengths = noise.flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)
    expected = (x_0 - s / (1 - s) * 0.3 * lengths[:, None, None, None] * g).detach()

    _, step = guide(backend, x_s, 2, condition, settings(), brightness)

    torch.testing.assert_close(step.x_0.double(), expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(step.noise.double(), (x - (1 - s) * expected) / s, atol=1e-4, rtol=1e-3)


def test_guided_step_at_pure_noise_is_bounded_and_keeps_x_t():
    scheduler = make_scheduler(FLOW, "ddim", flow=True)
    scheduler.set_timesteps(STEPS)
    x_t, v, step = torch.randn(3, 2, 4, 8, 8).unbind()
    s = weights(scheduler, 0)[1]

    moved = move(scheduler, Prediction(x_t - s * v, x_t + (1 - s) * v), x_t, 0, step)

    assert s == 1
    torch.testing.assert_close((moved.x_0 - (x_t - v)), -16 * step, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.noise, x_t)


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize(
    "config", [FLOW, {"flow_shift": 3.0, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}]
)
def test_both_kinds_of_flow_config_give_both_samplers_the_same_shift(sampler, config):
    scheduler = make_scheduler(config, sampler, flow=True)
    set_timesteps(scheduler, 100, lambda *_: 0.0, has_own_sigmas=False)

    signal, sigma = weights(scheduler, 50)

    assert is_flow(scheduler)
    assert signal + sigma == 1
    assert sigma == pytest.approx(0.75, abs=0.01)  # 0.5 shifted by 3.


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
def test_dynamic_shift_is_that_of_the_number_of_image_tokens(sampler):
    scheduler = make_scheduler(FLOW | {"use_dynamic_shifting": True}, sampler, flow=True)

    set_timesteps(scheduler, 100, lambda *_: float(np.log(3.0)), has_own_sigmas=False)

    assert weights(scheduler, 50)[1] == pytest.approx(0.75, abs=0.01)


def test_solver_on_flow_sigmas_is_a_flow_although_it_has_cumulative_alphas():
    solver = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")

    assert is_flow(solver)
    assert hasattr(solver, "alphas_cumprod")


@pytest.mark.parametrize("sampler", ["ddpm", "lcm"])
def test_sampler_that_knows_no_flow_is_refused(sampler):
    with pytest.raises(ValueError, match=f"'sampler' must be one of ddim, dpm-solver.*, got {sampler}"):
        make_scheduler(FLOW, sampler, flow=True)


@pytest.mark.parametrize("key", ["shift_terminal", "stochastic_sampling", "use_karras_sigmas"])
def test_setting_that_a_sampler_ignores_is_refused(key):
    with pytest.raises(ValueError, match=f"sets '{key}', which the sampler dpm-solver.* does not know"):
        make_scheduler(FLOW | {key: 0.1}, "dpm-solver++", flow=True)


def test_a_solver_s_own_sigmas_are_the_weights(walked):
    backend, *_ = walked
    config = dict(backend.pipeline.scheduler.config) | {"use_karras_sigmas": True}
    scheduler = make_scheduler(config, "dpm-solver++", flow=False)
    scheduler.set_timesteps(STEPS)

    signal, sigma = weights(scheduler, 1)

    torch.testing.assert_close(sigma / signal, scheduler.sigmas[1])
    torch.testing.assert_close(signal**2 + sigma**2, torch.tensor(1.0))


def test_the_embedded_flow_model_is_guided_by_one_key():
    backend = opening.load_backend(SynthesisConfig(diffusion_model="digits-flow"), torch.device("cpu"))
    noise, condition = backend.initial_noise([1, 2]), backend.condition(["3", "8"])
    settings = SamplingSettings(8, guidance_scale=3.0, guidance_strength=0.3, guided_until=0.54)

    def brightness(images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))

    drawn = []
    for loss in (None, brightness):
        backend.set_timesteps(8)
        drawn.append(brightness(sample(backend, noise, condition, settings, loss)))

    assert is_flow(backend.scheduler)
    assert (drawn[1] < drawn[0]).all()
