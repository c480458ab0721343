"""Peak memory of a guidance gradient through Stable Diffusion's decoder, randomly initialised, in diffusers' ways to
save memory, each in a process of its own, on the CPU; one JSON line.

uv run python -m tests.bench.bench_decoder [--size 512] [--batch 2]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.metadata import version

import torch
from diffusers import AutoencoderKL

LEVELS = (128, 256, 512, 512)
WAYS = {
    "plain": lambda vae: None,
    "tiles": lambda vae: vae.enable_tiling(),
    "slices": lambda vae: vae.enable_slicing(),
    "checkpoints": lambda vae: vae.enable_gradient_checkpointing(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=2, help="images decoded at once")
    parser.add_argument("--way", choices=WAYS, help="measure this one alone, in this process")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.size, arguments.batch)))
        return
    command = [sys.executable, "-m", "tests.bench.bench_decoder", *sys.argv[1:], "--way"]
    ways = {way: json.loads(subprocess.check_output([*command, way], text=True)) for way in WAYS}
    for found in ways.values():
        found["same_gradient"] = found["norm"] == ways["plain"]["norm"]
    versions = {name: version(name) for name in ("torch", "diffusers")}
    print(json.dumps({"size": arguments.size, "batch": arguments.batch, "versions": versions, "ways": ways}))


def measure(way: str, size: int, batch: int) -> dict:
    """Mebibytes above the weights' own, seconds, and the gradient's norm."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=LEVELS,
        down_block_types=("DownEncoderBlock2D",) * len(LEVELS),
        up_block_types=("UpDecoderBlock2D",) * len(LEVELS),
        layers_per_block=2,
        latent_channels=4,
        sample_size=size // 2,  # A tile's side; at its own size it would be one tile.
    )
    vae.eval().requires_grad_(False)
    WAYS[way](vae)
    latents = torch.randn(batch, 4, size // 8, size // 8, requires_grad=True)
    before, started = peak(), time.perf_counter()
    (gradient,) = torch.autograd.grad(vae.decode(latents).sample.square().mean(), latents)
    return {
        "mebibytes": round(peak() - before),
        "seconds": round(time.perf_counter() - started, 1),
        "norm": float(gradient.norm()),
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
