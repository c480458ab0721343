"""Memory of a distillation of photographs by number of clients, and a student's images a second; the last line is JSON.

Memory: peak resident MB (10**6 bytes) of a process that reads synthetic images of 512 pixels, shows them to every
client's classifier, and trains a student of 224 pixels for a few updates, less what the process has before. The nets
are tiny, so this is the memory beside the models. The images are of one colour each: smaller files, the same pixels.
They lie in a file of pixels, as more than 1 GiB of them do.

Speed: a ResNet-50 as the server trains it, on images of 224 pixels in a file and with the looks of photographs, over a
plain loop: torchvision's ImageFolder, a DataLoader with a worker for each core, crop, mirror image and normalisation.

uv run python -m tests.bench.bench_distillation [--clients 6 36] [--images-per-class 1] [--batch 16] [--updates 4]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet50
from torchvision.transforms import v2

from common.config import Config
from common.config.run import DistillationConfig
from common.devices import default_device, training_precision
from common.manifest import Preprocessing
from common.processes import num_processors
from common.storage.images import ImageFile
from common.upload import Upload, weights_digest
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import trainer
from fedlmg_server.distillation import synthetic_set
from fedlmg_server.distillation.aggregate import TeacherCache
from fedlmg_server.distillation.job import train_model
from fedlmg_server.distillation.synthetic_set import SyntheticSet, read_images
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet
from fedlmg_server.workspace import Workspace
from tests.manifests import make_manifest, saying

SIZE, STUDENT, CLASSES = 512, 224, 345
BUILDER = "tests.bench.bench_distillation:build_tiny"
UPDATES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="*", default=[6, 36], help="none: speed alone")
    parser.add_argument("--images-per-class", type=int, default=1, help="of each client; 30 in the paper")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--updates", type=int, default=4, help="timed, of each loop and each of two turns")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(distil(arguments.clients[0], arguments.images_per_class))
        return
    peaks = {}
    for clients in arguments.clients:
        peaks[clients] = _measure(clients, arguments.images_per_class)
        print(f"{clients} clients: {peaks[clients]:.0f} MB", flush=True)
    result = {"peak": peaks, "images": {n: n * CLASSES * arguments.images_per_class for n in arguments.clients}}
    if arguments.updates:
        result |= measure_speeds(arguments.batch, arguments.updates)
    print(json.dumps(result))


def _measure(clients: int, images_per_class: int) -> float:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.bench.bench_distillation", "--here"]
    command += ["--clients", str(clients), "--images-per-class", str(images_per_class)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def build_tiny(num_classes: int, image_size: int = STUDENT) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, num_classes))


def distil(clients: int, images_per_class: int) -> float:
    """Peak resident memory in MB beside what there was at first."""
    names = [f"class {number}" for number in range(CLASSES)]
    with tempfile.TemporaryDirectory() as folder:
        settings = {"image-size": STUDENT, "student-architecture": BUILDER, "architectures": BUILDER}
        config = Config.from_run_config(settings | {"warm-start": False, "workspace": folder, "dataset": ""})
        run = Run(config, Workspace(Path(folder)), torch.device("cpu"))
        run.uploads = [_upload(str(number), names, config) for number in range(clients)]
        paths, labels, owners = _draw(Path(folder) / "synthetic", run, images_per_class)
        synthetic_set.MOST_IN_MEMORY = 0
        before = psutil.Process().memory_info().rss
        images = read_images(paths, run.preprocess, run.workspace.distillation, "fedlmg")
        synthetic = SyntheticSet(images, labels, owners, names)
        data = TeacherCache(run, synthetic).training_set("specific-teacher", {name: 1.0 for name in set(owners)})
        train_model(build_tiny(CLASSES), data, config, UPDATES)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before / 1e6


def _upload(client: str, names: list[str], config: Config) -> Upload:
    arrays = build_tiny(len(names)).state_dict()
    said = make_manifest(client, names, architecture=BUILDER, sha256=weights_digest(arrays))
    shown = Preprocessing.model_validate(PreprocessSpec(STUDENT).to_json())
    return saying(Upload(arrays, {}, said, config.builders), preprocessing=shown)


def _draw(folder: Path, run: Run, images_per_class: int) -> tuple[list[Path], torch.Tensor, list[str]]:
    """Files, labels, and clients of images in the plan's order."""
    paths, labels, owners = [], [], []
    folder.mkdir()
    for client in (upload.client for upload in run.uploads):
        for number in range(images_per_class * CLASSES):
            paths.append(folder / f"{client}-{number}.png")
            Image.new("RGB", (SIZE, SIZE), (number % 256, number // 256 % 256, 7)).save(paths[-1])
            labels.append(number % CLASSES)
            owners.append(client)
    return paths, torch.tensor(labels), owners


def measure_speeds(batch: int, updates: int) -> dict:
    """Images a second of the server's loop and of the plain one, in turns, and their ratio."""
    device, num_images = default_device(), batch * updates
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos" / "class").mkdir(parents=True)
        paths = [folder / "photos" / "class" / f"{number}.jpg" for number in range(num_images)]
        for number, path in enumerate(paths):
            noise = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
            Image.fromarray(noise.numpy()).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)
        decoded = read_images(paths, PreprocessSpec(STUDENT), folder, "photos")
        (folder / "pixels").write_bytes(decoded.numpy().tobytes())
        in_file = ImageFile(folder / "pixels", decoded.shape)
        loops = {
            "plain": lambda: _plain(folder / "photos", batch, device),
            "server": lambda: _server(in_file, batch, device),
        }
        seconds: dict[str, list[float]] = {loop: [] for loop in loops}
        for _ in range(3):
            for loop, run in loops.items():
                started = time.perf_counter()
                run()
                seconds[loop].append(time.perf_counter() - started)
    # The first turn warms up.
    speeds = {loop: 2 * num_images / sum(taken[1:]) for loop, taken in seconds.items()}
    print(f"images a second on {device}: {speeds}", flush=True)
    return {
        "device": str(device),
        "images_per_second": {loop: round(speed, 3) for loop, speed in speeds.items()},
        "ratio": round(speeds["server"] / speeds["plain"], 3),
    }


def _plain(folder: Path, batch: int, device: torch.device) -> None:
    """An epoch of the loop of torchvision's references, without a teacher."""
    augment = [v2.RandomResizedCrop(STUDENT), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, True)]
    transform = v2.Compose([*augment, v2.Normalize([0.5] * 3, [0.25] * 3)])
    loader = DataLoader(
        ImageFolder(folder, transform),
        batch,
        shuffle=True,
        num_workers=num_processors(),
        pin_memory=device.type == "cuda",
    )
    model = resnet50(num_classes=CLASSES).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    dtype = training_precision(model, STUDENT, device)
    for images, labels in loader:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(images.to(device, memory_format=torch.channels_last, non_blocking=True))
        loss = F.cross_entropy(logits.float(), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()


def _server(images: ImageFile, batch: int, device: torch.device) -> None:
    labels = torch.zeros(len(images), dtype=torch.int64)
    data = TrainingSet(images, labels, torch.full((len(images), CLASSES), 1 / CLASSES, dtype=torch.float16))
    model = resnet50(num_classes=CLASSES).to(device)
    config = DistillationConfig(student_batch_size=batch)
    trainer.train(model, data, PreprocessSpec(STUDENT), config, 0, len(images) // batch, looks="photos")


if __name__ == "__main__":
    main()
