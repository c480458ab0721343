"""Images per second of every preset against the authors' loop, in one run on one thread; the last line is JSON.

uv run python -m tests.bench.bench_synthesis [--images 50] [--reference-images 2]
"""

import argparse
import json
import platform
import time
from importlib.metadata import version

import torch

from common.config import SynthesisConfig, with_preset
from fedlmg_server import plan
from fedlmg_server.diffusion import families
from fedlmg_server.synthesis.draw import draw_batch, guidance_by
from tests.bench.reference import ReferenceLoop
from tests.conftest import make_upload

CLASS_NAMES = [str(digit) for digit in range(10)]
PRESETS = ("exact", "default", "fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--reference-images", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    upload = make_upload("bench", CLASS_NAMES)
    speeds = {"reference": reference_speed(upload, arguments.reference_images)}
    print(f"reference: {speeds['reference']:.3f} images/s", flush=True)
    for preset in PRESETS:
        speeds[preset] = preset_speed(preset, upload, arguments.images)
        print(f"{preset}: {speeds[preset]:.3f} images/s", flush=True)
    result = {
        "device": platform.processor() or platform.machine(),
        "threads": 1,
        "dtype": "float32",
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "images_per_second": {name: round(speed, 3) for name, speed in speeds.items()},
        "ratio": {name: round(speed / speeds["reference"], 1) for name, speed in speeds.items()},
    }
    print(json.dumps(result))


def reference_speed(upload, num_images: int) -> float:
    backend = families.load(SynthesisConfig(), torch.device("cpu"))
    classifier = upload.classifier(torch.device("cpu"))
    loop = ReferenceLoop(backend.pipeline, classifier, upload.preprocess, upload.statistics)
    started = time.perf_counter()
    for seed in range(num_images):
        x_T, generator = backend.initial_noise([seed]), torch.Generator().manual_seed(seed)
        loop.draw(CLASS_NAMES[seed % 10], seed % 10, x_T, generator)
    return num_images / (time.perf_counter() - started)


def preset_speed(preset: str, upload, num_images: int) -> float:
    config = with_preset(SynthesisConfig(preset=preset))
    backend = families.load(config, torch.device("cpu"))
    guidance = guidance_by(upload, config, backend.device)
    drawings = plan.drawings(0, "bench", CLASS_NAMES, -(-num_images // 10))[:num_images]
    draw_batch(backend, guidance, drawings[:2], CLASS_NAMES, config)
    started = time.perf_counter()
    for batch in plan.batches(drawings, config.synthesis_batch_size):
        draw_batch(backend, guidance, batch, CLASS_NAMES, config)
    return num_images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
