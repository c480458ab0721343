"""Steps a second of every family against its own diffusers pipeline, unguided; the last line is JSON.

Tiny untrained pipelines, one image, classifier-free guidance. A step's seconds are those of the processor: the
difference of a long and a short drawing, so that prompts and decoding do not count; of each loop the fastest turn.

uv run python -m tests.bench.bench_families [--families sana prx] [--steps 4 44] [--turns 5]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.synthesis.generate import sampling_settings
from fedlmg_server.synthesis.sampler import sample
from tests.server import tiny_flow, tiny_pipelines
from tests.server.own_pipelines import draw_by_own_pipeline

LEGACY = ("stable-diffusion-1", "stable-diffusion-2", "stable-diffusion-xl")
SOLVED = ("sana", "pixart-alpha", "pixart-sigma")
SCALE = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=[*LEGACY, *tiny_flow.FAMILIES])
    parser.add_argument("--steps", type=int, nargs=2, default=[4, 44], metavar=("SHORT", "LONG"))
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ratios = {}
    for family in arguments.families:
        with tempfile.TemporaryDirectory() as folder:
            ours, own = measure(family, Path(folder), arguments.steps, arguments.turns)
        ratios[family] = round(own / ours, 3)
        print(f"{family}: {1 / ours:.0f} steps a second, its own pipeline {1 / own:.0f}", flush=True)
    print(json.dumps({"steps_a_second_over_own_pipeline": ratios}))


def measure(family: str, folder: Path, steps: list[int], turns: int) -> tuple[float, float]:
    """Seconds of a step of our loop, and of the pipeline's own."""
    pipelines = tiny_pipelines if family in LEGACY else tiny_flow
    size = 0 if family in LEGACY else tiny_flow.SIZE
    sampler = "dpm-solver++" if family in SOLVED else "ddim"
    saved = str(pipelines.save(family, folder))
    config = SynthesisConfig(diffusion_model=saved, diffusion_size=size, sampler=sampler)
    backend = opening.load_backend(config, torch.device("cpu"))
    backend.pipeline.set_progress_bar_config(disable=True)
    if family in LEGACY:
        backend.pipeline.scheduler = type(backend.scheduler).from_config(backend.scheduler.config)
    condition, settings = backend.condition(["cat"]), replace(sampling_settings(config), guidance_scale=SCALE)

    def draw(num_steps: int) -> None:
        backend.set_timesteps(num_steps)
        sample(backend, backend.initial_noise([5]), condition, settings)

    def draw_own(num_steps: int) -> None:
        backend.set_timesteps(num_steps)
        draw_by_own_pipeline(family, backend, SCALE, backend.initial_noise([5]), num_steps, "latent")

    ours, own = [], []
    for _ in range(turns + 1):  # The first turn warms up.
        ours.append(_seconds_of_a_step(draw, steps))
        own.append(_seconds_of_a_step(draw_own, steps))
    return min(ours[1:]), min(own[1:])


def _seconds_of_a_step(draw: Callable[[int], None], steps: list[int]) -> float:
    taken = []
    for num_steps in steps:
        started = time.process_time()
        draw(num_steps)
        taken.append(time.process_time() - started)
    return (taken[1] - taken[0]) / (steps[1] - steps[0])


if __name__ == "__main__":
    main()
