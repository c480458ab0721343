"""Steps a second of every family against its own diffusers pipeline, unguided; the last line is JSON.

Tiny untrained pipelines, one image, classifier-free guidance. Both loops draw in turn, and each turn gives a ratio of
two medians: processor seconds from one call of the scheduler to the next, so that prompts and decoding do not count.
Printed are the median of the ratios, its 95 % interval, and the rows of the denoiser's calls in a step.

uv run python -m tests.bench.bench_families [--families sana prx] [--steps 20] [--turns 40]
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.synthesis.generate import sampling_settings
from fedlmg_server.synthesis.sampler import sample
from tests.server import tiny_flow, tiny_pipelines
from tests.server.own_pipelines import draw_by_own_pipeline

LEGACY = ("stable-diffusion-1", "stable-diffusion-2", "stable-diffusion-xl")
SOLVED = ("sana", "pixart-alpha", "pixart-sigma")
SCALE = 3.0


class Clock:
    """What one loop spends: call it around every drawing; it listens to a scheduler and a denoiser."""

    def __init__(self, scheduler: Any, denoiser: torch.nn.Module):
        self.moments: list[float] = []
        self.rows: list[int] = []
        step = scheduler.step

        @functools.wraps(step)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.moments.append(time.process_time())
            return step(*args, **kwargs)

        scheduler.step = timed
        self.denoiser = denoiser

    def _count(self, _: Any, args: tuple, kwargs: dict) -> None:
        self.rows.append(len(args[0] if args else kwargs["hidden_states"]))

    def time(self, draw: Callable[[], Any]) -> float:
        """Seconds of a step of one drawing, the median."""
        self.moments.clear()
        self.rows.clear()
        counting = self.denoiser.register_forward_pre_hook(self._count, with_kwargs=True)
        draw()
        counting.remove()
        return statistics.median(after - before for before, after in zip(self.moments, self.moments[1:], strict=False))

    @property
    def rows_a_step(self) -> list[int]:
        return self.rows[: len(self.rows) // len(self.moments)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=[*LEGACY, *tiny_flow.FAMILIES])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for family in arguments.families:
        with tempfile.TemporaryDirectory() as folder:
            found[family] = measure(family, Path(folder), arguments.steps, arguments.turns)
        print(family, json.dumps(found[family]), flush=True)
    print(json.dumps({"steps": arguments.steps, "turns": arguments.turns, "families": found}))


def measure(family: str, folder: Path, num_steps: int, turns: int) -> dict:
    """Steps a second of our loop over those of the pipeline's own, and what each asks of the denoiser."""
    backend, config = _open(family, folder)
    noise, condition = backend.initial_noise([5]), backend.condition(["cat"])
    settings = replace(sampling_settings(config), guidance_scale=SCALE)

    def draw() -> None:
        backend.set_timesteps(num_steps)
        sample(backend, noise, condition, settings)

    def draw_own() -> None:
        draw_by_own_pipeline(family, backend, SCALE, noise, num_steps, "latent")

    loops = [
        (draw, Clock(backend.scheduler, backend.denoiser)),
        (draw_own, Clock(backend.pipeline.scheduler, backend.denoiser)),
    ]
    ours, own = [], []
    for turn in range(turns + 1):
        seconds = {draw: clock.time(draw) for draw, clock in loops[:: 1 if turn % 2 else -1]}
        if turn:  # The first warms up.
            ours.append(seconds[draw])
            own.append(seconds[draw_own])
    ratio, low, high = median_with_interval([theirs / mine for mine, theirs in zip(ours, own, strict=True)])
    return {
        "ratio": round(ratio, 3),
        "interval": [round(low, 3), round(high, 3)],
        "milliseconds": [round(1000 * statistics.median(seconds), 2) for seconds in (ours, own)],
        "rows": [clock.rows_a_step for _, clock in loops],
    }


def _open(family: str, folder: Path) -> tuple[LatentBackend, SynthesisConfig]:
    pipelines = tiny_pipelines if family in LEGACY else tiny_flow
    size = 0 if family in LEGACY else tiny_flow.SIZE
    sampler = "dpm-solver++" if family in SOLVED else "ddim"
    saved = str(pipelines.save(family, folder))
    config = SynthesisConfig(diffusion_model=saved, diffusion_size=size, sampler=sampler)
    backend = opening.load_backend(config, torch.device("cpu"))
    assert isinstance(backend, LatentBackend)
    backend.pipeline.set_progress_bar_config(disable=True)
    if family in LEGACY:
        backend.pipeline.scheduler = type(backend.scheduler).from_config(backend.scheduler.config)
    return backend, config


def median_with_interval(values: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval, by ranks: it supposes no distribution."""
    ordered, count = sorted(values), len(values)
    reach = round(0.98 * count**0.5)
    low, high = max(count // 2 - reach, 0), min((count - 1) // 2 + reach, count - 1)
    return statistics.median(ordered), ordered[low], ordered[high]


if __name__ == "__main__":
    main()
