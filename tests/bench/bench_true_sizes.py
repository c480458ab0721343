"""A federation of DomainNet's sizes to its table, with little of everything else; the last line is JSON.

True: 345 classes, six clients with a ResNet-18, images of 224 pixels, synthetic images of 512, a Stable Diffusion
pipeline's parts. Small: the diffusion model, which is untrained, one synthetic image a class and client, two steps of
the sampler, two photographs a class and client for training and one for testing, one epoch of each training. Nobody is
heard as a witness, which would draw more images than the run. Memory is the most that all processes hold together, in
MB (10**6 bytes); pages that they share count once.

uv run python -m tests.bench.bench_true_sizes [--classes 345] [--clients 6] [--folder FOLDER]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from fedlmg_server.diffusion.pretraining import tiny_pipeline

PHOTOGRAPH, SYNTHETIC, SEEN = 256, 512, 224
"""Pixels of the clients' files, of synthetic images, and of what classifiers see."""
METHODS = ("local-own", "local-all", "ensemble", "fedlmg-specific-teacher")
EXPERIMENT = """seeds = [0]
methods = {methods}
dataset = ""
folders = "{folders}"
diffusion-model = "{model}"
warm-start = false
looks = "photos"
image-size = {seen}
architectures = "resnet18"
student-architecture = "resnet18"
local-epochs = 1
student-epochs = 1
images-per-class = 1
num-inference-steps = 2
noise-editing-steps = 0
min-confidence = 0.0
teacher-weighting = "uniform"
witness = "off"
num-clients = {clients}
min-clients = {clients}
deadline-seconds = 86400.0

[settings."true sizes"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=345)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where everything goes and stays; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        experiment = _prepare(folder, arguments.classes, arguments.clients)
        command = [str(Path(sys.executable).with_name("fedlmg")), "bench", "baselines"]
        started = time.monotonic()
        process = subprocess.Popen([*command, "--config", str(experiment), "--out", str(folder / "out")])
        peak = _watch(process)
        if process.returncode:
            sys.exit(process.returncode)
        events = (json.loads(line) for path in folder.rglob("events.jsonl") for line in path.open(encoding="utf-8"))
        ended = [each for each in events if each["kind"] == "stage" and each["state"] == "finished"]
        stages = {each["name"]: round(each["seconds"]) for each in ended}
        found = {
            "classes": arguments.classes,
            "clients": arguments.clients,
            "stages": stages,
            "peak": round(peak / 1e6),
        }
        print(json.dumps(found | {"seconds": round(time.monotonic() - started)}))


def _prepare(folder: Path, classes: int, clients: int) -> Path:
    """Photographs and the untrained diffusion model, where they are missing; returns the experiment's file."""
    sites = [folder / f"site-{number}" for number in range(clients)]
    for number, site in enumerate(sites):
        for label in range(classes):
            for split, count in (("train", 2), ("test", 1)):
                _draw(site / split / f"thing {label}", [number, label, count], count)
    if not (folder / "model" / "model_index.json").exists():
        _build_model().save_pretrained(folder / "model")
    said = {"folders": ";".join(map(str, sites)), "model": folder / "model", "seen": SEEN, "clients": clients}
    file = folder / "true-sizes.toml"
    file.write_text(EXPERIMENT.format(methods=json.dumps(METHODS), **said), encoding="utf-8")
    return file


def _build_model() -> StableDiffusionPipeline:
    """Untrained; latents of an eighth of the image's side, as Stable Diffusion has them."""
    pipeline = tiny_pipeline.build_pipeline(SYNTHETIC // 2, channels=(32, 32))
    pipeline.vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SYNTHETIC,
    )
    return pipeline


def _draw(folder: Path, seed: list[int], count: int) -> None:
    """JPEG files of about 15 kB: noise of a sixteenth of their size, enlarged."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (PHOTOGRAPH // 16, PHOTOGRAPH // 16, 3), dtype=np.uint8)
        enlarged = Image.fromarray(pixels).resize((PHOTOGRAPH, PHOTOGRAPH), Image.Resampling.BICUBIC)
        enlarged.save(folder / f"{number}.jpg", quality=90)


def _watch(process: subprocess.Popen) -> int:
    """Wait for the end; returns the most bytes that the process and all that it started held at once."""
    peak, tree = 0, psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        with suppress(psutil.Error):
            for each in [tree, *tree.children(recursive=True)]:
                with suppress(psutil.Error):
                    memory = each.memory_full_info()
                    held += getattr(memory, "pss", memory.rss)
        peak = max(peak, held)
        time.sleep(3)  # Each look at so many processes takes a while.
    return peak


if __name__ == "__main__":
    main()
