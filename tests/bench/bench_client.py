"""A client with many photographs: memory, decoding, and epochs from its cache of squares; the last line is JSON.

Each part has a process of its own. Peaks are resident MB (10**6 bytes). Images a second of an epoch are those of a
ResNet-18 as a client trains it; `epoch_ratio` is the time of an epoch that reads the cache over the time of one that
holds the same images in memory, in turns. `decode_ratio` is the images a second of the first reading, with hashes, over
a plain loop over the files on one core.

uv run python -m tests.bench.bench_client [--images 2000 4000] [--size 256] [--image-size 224] [--updates 20]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from common.clients.data import ClientData
from common.config.run import LocalTrainingConfig
from common.datasets.labeled_images import LabeledView
from common.datasets.readers import folders, squares
from common.models import architectures
from common.processes import num_processors
from common.storage.images import ImageView
from common.vision.batches import read_batches
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import training

CLASSES, BATCH = 10, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[2000, 4000])
    parser.add_argument("--size", type=int, default=256, help="pixels of the JPEG files")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of a square")
    parser.add_argument("--updates", type=int, default=20, help="timed, of each loop and each of two turns")
    parser.add_argument("--folder", type=Path, help="where images and cache go; a temporary folder by default")
    parser.add_argument("--part", choices=("check", "train", "speed", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments)))
        return
    result: dict = {"cores": num_processors()}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        for count in arguments.images:
            folder = Path(root) / str(count)
            _draw(folder / "images", count, arguments.size)
            result[str(count)] = {part: _measure(part, folder, arguments) for part in PARTS}
            print(f"{count} images: {json.dumps(result[str(count)])}", flush=True)
    print(json.dumps(result))


def _draw(folder: Path, count: int, size: int) -> None:
    """JPEG files of about 15 kB: noise of a sixteenth of their size, enlarged."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % CLASSES) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)


def _measure(part: str, folder: Path, arguments: argparse.Namespace) -> dict:
    command = [sys.executable, "-m", "tests.bench.bench_client", "--part", part, "--folder", str(folder)]
    command += ["--image-size", str(arguments.image_size), "--updates", str(arguments.updates)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def check(arguments: argparse.Namespace) -> dict:
    """`fedlmg-client check`."""
    started = time.monotonic()
    command = [sys.executable, "-m", "fedlmg_client.cli", "check", str(arguments.folder / "images")]
    # Its own peak would be at least that of this process, from which it is forked.
    process, peak = psutil.Popen(command, stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, process.memory_info().rss)
        time.sleep(0.02)
    assert process.returncode == 0
    return {"seconds": round(time.monotonic() - started, 1), "peak": round(peak / 1e6)}


def train(arguments: argparse.Namespace) -> dict:
    """Load the images, train a few updates on some of them, and measure on all."""
    started = time.monotonic()
    data = _load(arguments)
    loaded = time.monotonic() - started
    model = architectures.build("resnet18", CLASSES, arguments.image_size)
    spec = PreprocessSpec(arguments.image_size)
    few = ClientData(
        "bench", data.class_names, _every(data.splits["train"], BATCH * 4), _every(data.splits["validation"], 256),
        data.splits["test"], data.fingerprint, "folder",
    )  # fmt: skip
    config = LocalTrainingConfig(local_epochs=1, local_batch_size=BATCH, image_size=arguments.image_size)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(model, few, spec, config, 0, Path(folder) / "cache", torch.device("cpu"))
    peak = _peak()
    for images in read_batches(data.splits["train"].images, _batches(len(data.splits["train"])), spec, "cpu"):
        assert images.shape[-1] == arguments.image_size
    return {"seconds_to_load": round(loaded, 1), "peak_of_training": peak, "peak": _peak()}


def speed(arguments: argparse.Namespace) -> dict:
    """The squares lie in the cache already."""
    view = _load(arguments).splits["train"].images
    rows = _batches(len(view))[: arguments.updates]
    held = ImageView.of(view.choose(torch.cat(rows)).read())
    times: dict[str, float] = {"file": 0.0, "memory": 0.0}
    for _ in range(2):
        times["file"] += _time(view, rows, arguments.image_size)
        times["memory"] += _time(held, list(torch.arange(len(held)).split(BATCH)), arguments.image_size)
    paths = sorted((arguments.folder / "images").rglob("*.jpg"))[:500]
    started = time.monotonic()
    squares.read_squares(paths, arguments.image_size)
    ours, started = time.monotonic() - started, time.monotonic()
    for path in paths:
        Image.open(path).convert("RGB").resize((arguments.image_size,) * 2, Image.Resampling.BILINEAR)
    plain = time.monotonic() - started
    return {"epoch_ratio": round(times["file"] / times["memory"], 3), "decode_ratio": round(plain / ours, 2),
            "images_a_second": round(2 * len(held) / times["file"], 1)}  # fmt: skip


def _time(images: ImageView, rows: list[torch.Tensor], size: int) -> float:
    model, spec = architectures.build("resnet18", CLASSES, size), PreprocessSpec(size)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    started = time.monotonic()
    for inputs in read_batches(images, rows, spec, torch.device("cpu")):
        loss = model(spec.normalize(inputs)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.monotonic() - started


def _load(arguments: argparse.Namespace) -> folders.ImageFolder:
    cache = arguments.folder / "cache"
    return folders.load(arguments.folder / "images", arguments.image_size, cache=cache)


def _batches(count: int) -> list[torch.Tensor]:
    return list(torch.randperm(count, generator=torch.Generator().manual_seed(0)).split(BATCH))


def _every(part: LabeledView, most: int) -> LabeledView:
    return part.choose(torch.arange(0, len(part), max(1, len(part) // most))[:most])


def plain(arguments: argparse.Namespace) -> dict:
    """The same net and batch in a loop that reads no images."""
    model = architectures.build("resnet18", CLASSES, arguments.image_size).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for _ in range(4):
        loss = model(torch.rand(BATCH, 3, arguments.image_size, arguments.image_size)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"peak": _peak()}


def _peak() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


PARTS = {"check": check, "train": train, "speed": speed, "plain": plain}

if __name__ == "__main__":
    main()
