"""Images per second of every preset against the authors' loop, in one run; the last line is JSON.

The authors' loop runs as they run it: one process, PyTorch's own choice of threads. The presets run as `fedlmg run`
runs them: one process of one thread for each processor core. `one_thread` compares both on one.

uv run python -m tests.bench.bench_synthesis [--images 50] [--reference-images 3]
"""

import argparse
import json
import multiprocessing
import platform
import time
from importlib.metadata import version

import torch

from common.config import Config
from common.config.synthesis import SynthesisConfig
from common.processes import num_processors
from fedlmg_server.diffusion import opening
from fedlmg_server.synthesis.generate import generate_batch, guide_by
from fedlmg_server.synthesis.plan import plan_images, split_into_batches
from tests.bench.reference import ReferenceLoop
from tests.conftest import make_upload

CLASS_NAMES = [str(digit) for digit in range(10)]
PRESETS = ("authors", "default", "fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50, help="of each preset and process")
    parser.add_argument("--reference-images", type=int, default=3)
    arguments = parser.parse_args()
    processes = num_processors()
    machine = _speeds(arguments.reference_images, None, arguments.images, processes)
    one_thread = _speeds(arguments.reference_images, 1, arguments.images, 1)
    result = {
        "device": platform.processor() or platform.machine(),
        "processes": processes,
        "dtype": "float32",
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        **_summary(machine),
        "one_thread": _summary(one_thread),
    }
    print(json.dumps(result))


def _speeds(reference_images: int, threads: int | None, images: int, processes: int) -> dict[str, float]:
    """Images per second of the authors' loop and of each preset."""
    speeds = {"reference": _in_processes(reference_speed, 1, reference_images, threads)}
    print(f"reference, {threads or 'all'} threads: {speeds['reference']:.3f} images/s", flush=True)
    for preset in PRESETS:
        speeds[preset] = _in_processes(preset_speed, processes, preset, images)
        print(f"{preset}, {processes} processes: {speeds[preset]:.3f} images/s", flush=True)
    return speeds


def _in_processes(measure, processes: int, *arguments) -> float:
    """Sum of the speeds of fresh processes side by side, each past its warm-up before any of them is timed."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.SimpleQueue()
    started = [
        context.Process(target=_report, args=(measure, barrier, queue, arguments), daemon=True)
        for _ in range(processes)
    ]
    for process in started:
        process.start()
    total = sum(queue.get() for _ in started)
    for process in started:
        process.join()
    return total


def _report(measure, barrier, queue, arguments: tuple) -> None:
    queue.put(measure(barrier, *arguments))


def _summary(speeds: dict[str, float]) -> dict:
    return {
        "images_per_second": {name: round(speed, 3) for name, speed in speeds.items()},
        "ratio": {name: round(speed / speeds["reference"], 1) for name, speed in speeds.items()},
    }


def reference_speed(barrier, num_images: int, threads: int | None) -> float:
    if threads:
        torch.set_num_threads(threads)
    upload = make_upload("bench", CLASS_NAMES)
    backend = opening.load_backend(SynthesisConfig(), torch.device("cpu"))
    classifier = upload.classifier(torch.device("cpu"))
    loop = ReferenceLoop(backend.pipeline, classifier, upload.preprocess, upload.statistics)
    barrier.wait()
    started = time.perf_counter()
    for seed in range(num_images):
        x_T, generator = backend.initial_noise([seed]), torch.Generator().manual_seed(seed)
        loop.draw(CLASS_NAMES[seed % 10], seed % 10, x_T, generator)
    return num_images / (time.perf_counter() - started)


def preset_speed(barrier, preset: str, num_images: int) -> float:
    torch.set_num_threads(1)
    upload = make_upload("bench", CLASS_NAMES)
    config = Config.from_run_config({"preset": preset}).synthesis
    backend = opening.load_backend(config, torch.device("cpu"))
    guidance = guide_by(upload, config, backend.device)
    drawings = plan_images(0, "bench", CLASS_NAMES, -(-num_images // 10))[:num_images]
    generate_batch(backend, guidance, drawings[:2], CLASS_NAMES, Config.from_run_config({"preset": "fast"}).synthesis)
    barrier.wait()
    started = time.perf_counter()
    for batch in split_into_batches(drawings, config.synthesis_batch_size):
        generate_batch(backend, guidance, batch, CLASS_NAMES, config)
    return num_images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
