"""From a pipeline's scheduler config to the sampler that the run asks for, on the model's own noise schedule."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)

from fedlmg_server.diffusion.prediction import LEAST_SIGNAL, is_flow


class ClippedDPMSolver(DPMSolverMultistepScheduler):
    """DPM-Solver++ that clips its clean estimates as the model's own sampler does; diffusers' ignores `clip_sample`."""

    clip_range = 1.0

    def convert_model_output(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().convert_model_output(*args, **kwargs).clamp(-self.clip_range, self.clip_range)


SAMPLERS = {
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "dpm-solver++": DPMSolverMultistepScheduler,
    "lcm": LCMScheduler,
}
"""Config key `sampler` -> scheduler of variance-preserving models."""
FLOW_SAMPLERS = ("ddim", "dpm-solver++")
"""Values of `sampler` for flow matching, where DDIM's step is Euler's."""
FLOW_ONLY_EULER = (
    "shift_terminal",
    "stochastic_sampling",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)
"""Settings of a flow schedule that DPM-Solver++ ignores."""


def make_scheduler(config: Mapping[str, Any], sampler: str, flow: bool) -> Any:
    """The sampler, on the noise schedule that the config of a pipeline's scheduler describes.

    Raises
    ------
    ValueError: there is none, or the sampler is none for it, or it ends in pure noise although the model predicts that
        noise.
    """
    try:
        return _make_flow(config, sampler) if flow else _make_variance_preserving(config, sampler)
    except ValueError:
        raise
    except Exception as error:  # Of values that make no sense, diffusers raises what it happens to meet.
        raise ValueError(f"its scheduler cannot be made of scheduler/scheduler_config.json ({error!r})") from None


def _make_flow(config: Mapping[str, Any], sampler: str) -> Any:
    if sampler not in FLOW_SAMPLERS:
        known = ", ".join(FLOW_SAMPLERS)
        raise ValueError(f"it is a flow-matching model, for which 'sampler' must be one of {known}, got {sampler}")
    if sampler == "ddim":
        return FlowMatchEulerDiscreteScheduler.from_config({"shift": config.get("flow_shift", 1.0)} | dict(config))
    ignored = [key for key in FLOW_ONLY_EULER if config.get(key)]
    if config.get("time_shift_type", "exponential") != "exponential":
        ignored.append("time_shift_type")
    if ignored:
        raise ValueError(
            f"its scheduler/scheduler_config.json sets '{ignored[0]}', which the sampler dpm-solver++ does not "
            "know: set 'sampler' to ddim"
        )
    changes = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "algorithm_type": "dpmsolver++"}
    given = {"flow_shift": config.get("shift", 1.0)} | dict(config) | changes
    return DPMSolverMultistepScheduler.from_config(given)


def _make_variance_preserving(config: Mapping[str, Any], sampler: str) -> Any:
    clips = bool(config.get("clip_sample", False))
    changes: dict[str, Any] = {"clip_sample": clips}
    if sampler == "ddpm":
        changes["variance_type"] = "fixed_small"
    kind = SAMPLERS[sampler]
    if sampler == "dpm-solver++":
        # The channels of a learned variance are cut off before; the solver would cut others.
        changes["variance_type"] = None
        if config.get("algorithm_type") == "dpmsolver":
            changes["algorithm_type"] = "dpmsolver++"
        if clips:
            kind = ClippedDPMSolver
    scheduler = kind.from_config(dict(config), **changes)
    if clips and kind is ClippedDPMSolver:
        scheduler.clip_range = config.get("clip_sample_range", 1.0)
    _check_abar(scheduler)
    return scheduler


def set_timesteps(
    scheduler: Any, num_steps: int, shift_exponent: Callable[[int, Any], float], has_own_sigmas: bool
) -> None:
    """Set the steps as the model's own pipeline does.

    shift_exponent: of a flow schedule that shifts with the number of image tokens, by the number of steps and the
    scheduler's config. has_own_sigmas: the pipeline gives sigmas from 1 to 1 / steps, before any shift.
    """
    if not is_flow(scheduler):
        scheduler.set_timesteps(num_steps)
        return
    given: dict[str, Any] = {}
    if scheduler.config.get("use_dynamic_shifting"):
        given["mu"] = shift_exponent(num_steps, scheduler.config)
    if has_own_sigmas and not scheduler.config.get("use_flow_sigmas"):
        given["sigmas"] = np.linspace(1.0, 1 / num_steps, num_steps)
    scheduler.set_timesteps(num_steps, **given)
    # A solver's time steps are whole numbers, and two may be equal: it would take the second for the first.
    scheduler.set_begin_index(0)


def _check_abar(scheduler: Any) -> None:
    abar = scheduler.alphas_cumprod
    if not bool(((abar >= 0) & (abar <= 1)).all()) or not bool((abar.diff() <= 0).all()):
        raise ValueError(
            "its scheduler's betas make no noise schedule, whose signal falls from 1 towards 0: mend "
            "scheduler/scheduler_config.json"
        )
    if scheduler.config.prediction_type == "epsilon" and abar[-1] <= LEAST_SIGNAL:
        raise ValueError(
            "its noise schedule ends in pure noise ('rescale_betas_zero_snr'), where a model that predicts the noise "
            "('prediction_type' epsilon) says nothing of the image: correct one of the two in "
            "scheduler/scheduler_config.json"
        )
