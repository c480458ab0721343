"""Peak memory of a guidance gradient through Stable Diffusion's decoder, randomly initialised, in diffusers' ways to
save memory, each in a process of its own, on the CPU; one JSON line.

With `--count` nothing is computed: the bytes of the tensors that live at once are counted, without what kernels need
for themselves.

uv run python -m tests.bench.bench_decoder [--size 512] [--batch 2] [--count]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import weakref
from importlib.metadata import version
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

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
    parser.add_argument("--count", action="store_true", help="count the tensors' bytes in place of computing")
    arguments = parser.parse_args()
    if arguments.count:
        print(json.dumps({way: count(way, arguments.size, arguments.batch) for way in WAYS}))
        return
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
    vae, latents = make(way, size, batch)
    before, started = peak(), time.perf_counter()
    gradient = find_gradient(vae, latents)
    return {
        "mebibytes": round(peak() - before),
        "seconds": round(time.perf_counter() - started, 1),
        "norm": float(gradient.norm()),
    }


def count(way: str, size: int, batch: int) -> int:
    """Mebibytes of the tensors that live at once, at most, above the weights' own."""
    with torch.device("meta"):
        vae, latents = make(way, size, batch)
    with LivingTensors() as living:
        find_gradient(vae, latents)
    return round(living.most / 2**20)


class LivingTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._note, made)
        return made

    def _note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        return tensor

    def _forget(self, key: int, size: int) -> None:
        self.known.remove(key)
        self.now -= size


def make(way: str, size: int, batch: int) -> tuple[AutoencoderKL, torch.Tensor]:
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
    return vae, torch.randn(batch, 4, size // 8, size // 8, requires_grad=True)


def find_gradient(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(vae.decode(latents).sample.square().mean(), latents)[0]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
