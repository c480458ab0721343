"""From a pipeline's scheduler config to the sampler that the run asks for, on the model's own noise schedule."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, LCMScheduler


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
"""Config key `sampler` -> scheduler."""
LEAST_SIGNAL = 2**-24
"""Of abar: what diffusers' solvers put in the place of zero."""


def make_scheduler(config: Mapping[str, Any], sampler: str) -> Any:
    """The sampler, on the noise schedule that the config of a pipeline's scheduler describes.

    Raises
    ------
    ValueError: there is none, or it ends in pure noise although the model predicts that noise.
    """
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
    try:
        scheduler = kind.from_config(dict(config), **changes)
    except Exception as error:  # Of values that make no sense, diffusers raises what it happens to meet.
        raise ValueError(f"its scheduler cannot be made of scheduler/scheduler_config.json ({error!r})") from None
    if clips and kind is ClippedDPMSolver:
        scheduler.clip_range = config.get("clip_sample_range", 1.0)
    _check_abar(scheduler)
    return scheduler


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
