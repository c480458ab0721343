"""Small stand-ins for an experiment's data and diffusion model, so that any of them runs end to end in minutes.

The data lie as the true ones do; pictures are flat colours, one for each class. The diffusion model is untrained.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from common.config import Config
from common.config.simulation import in_turn
from common.config.synthesis import PROMPT
from fedlmg_server.bench.experiment import Experiment

CLASSES = ("bear", "bus", "cat", "dog", "fish", "fox", "owl", "rat", "ship", "tram", "tree", "yak")
NICO_DOMAINS = ("autumn", "dim", "grass", "outdoor", "rock", "water")
DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
NUM_TRAIN, NUM_TEST = 3, 1
"""Pictures of each class in each domain."""
LABORATORIES = ("barcelona", "bccd", "cellavision", "tecom")
SPLITS = (("train", NUM_TRAIN), ("test", NUM_TEST))
MOST_CLIENTS = 6
SMALL = ("small_resnet", "small_shufflenet_v2", "small_mobilenet_v3")
KEYS = {
    "image-size": 32,
    "initialisation": "",
    "local-epochs": 1,
    "client-sizes": "",
    "images-per-class": 1,
    "num-inference-steps": 2,
    "noise-editing-steps": 1,
    "min-confidence": 0.0,
    "teacher-weighting": "uniform",
    "student-architecture": "small_resnet",
    "student-initialisation": "",
    "student-epochs": 1,
    "guidance-decoder": "",
    "diffusion-lora": "",
    "prompt": PROMPT,
    "num-general-images": 200,
    "general-updates": 10,
}


def data(layout: str, folder: Path) -> Path:
    """A small data folder of one of `LAYOUTS`, made once."""
    if not (folder / "whole").exists():
        LAYOUTS[layout](folder)
        for label, name in enumerate(CLASSES):
            for number in range(NUM_TRAIN):
                _draw(folder / "imagenet" / name / f"{number}.jpg", label + 100, 0, number)
        (folder / "whole").write_text("", encoding="utf-8")
    return folder


def shrink(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with one seed, few and small clients, and an untrained diffusion model."""
    from fedlmg_server.diffusion.pretraining import tiny_pipeline

    if not (folder / "model_index.json").exists():
        tiny_pipeline.build_pipeline().save_pretrained(folder)
    small = experiment.with_keys(KEYS | {"diffusion-model": str(folder.resolve())})
    settings = {name: keys | _fewer(Config.from_run_config(keys)) for name, keys in small.settings.items()}
    variants = {
        name: {key: value for key, value in keys.items() if key != "preset"} for name, keys in small.variants.items()
    }
    return Experiment(settings, variants, [0], small.methods, small.public, small.layout, small.published)


def _fewer(config: Config) -> dict:
    """At most MOST_CLIENTS, of small architectures, that know two classes each where they know some."""
    num_names = len(config.training.architecture_names)
    clients = min(config.clients.num_clients, MOST_CLIENTS)
    classes = ";".join(f"{2 * index},{2 * index + 1}" for index in range(clients))
    return {
        "num-clients": clients,
        "min-clients": min(config.clients.min_clients, clients),
        "architectures": ",".join(in_turn(";".join(SMALL), index) for index in range(num_names)),
        "client-classes": classes if config.simulation.client_classes else "",
    }


def _draw(path: Path, label: int, domain: int, number: int) -> None:
    """A flat picture with some noise: its hue is the class's, its brightness the domain's."""
    rng = np.random.default_rng([label, domain, number])
    color = np.array([label * 37 % 256, label * 91 % 256, 40 * domain % 256])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(color + rng.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)).save(path)


def _lists(folder: Path, lists: Path, domains: tuple[str, ...], prefix: str) -> None:
    for domain_index, domain in enumerate(domains):
        for split, count in SPLITS:
            lines = []
            for label, name in enumerate(CLASSES):
                for number in range(count):
                    path = f"{prefix}{domain}/{name}/{split}_{number}.jpg"
                    _draw(folder / path, label, domain_index, number + 100 * (split == "test"))
                    lines.append(f"{path} {label}\n")
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{domain}_{split}.txt").write_text("".join(lines), encoding="utf-8")


def _domainnet(folder: Path) -> None:
    _lists(folder, folder, DOMAINNET_DOMAINS, "")


def _nico_common(folder: Path) -> None:
    _lists(folder, folder / "NICO_DG_official", NICO_DOMAINS, "NICO_DG/")


def _nico_unique(folder: Path) -> None:
    lists = folder / "NICO_unique_official"
    lists.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(CLASSES):
        for context in range(len(NICO_DOMAINS)):
            for split, count in SPLITS:
                paths = [f"NICO_unique/{name}/context {context}/{split}_{number}.jpg" for number in range(count)]
                for number, path in enumerate(paths):
                    _draw(folder / path, label, context, number + 100 * (split == "test"))
                # The published lists hold absolute paths of their authors' machine.
                text = "".join(f"/home/someone/{path} {label}\n" for path in paths)
                (lists / f"{name}_context {context}_{split}.txt").write_text(text, encoding="utf-8")


def _nico(folder: Path) -> None:
    _nico_common(folder)
    _nico_unique(folder)


def _open_image(folder: Path) -> None:
    """A folder a client in FiftyOne's layout, whose `classes.csv` calls a subclass by its super-category."""
    for client in range(6):
        for split, count in SPLITS:
            root = folder / f"client-{client}" / split
            lines = ["ImageID,Source,LabelName,Confidence\n"]
            for label in range(len(CLASSES)):
                for number in range(count):
                    image = f"{split}{client}x{label}x{number}"
                    _draw(root / "data" / f"{image}.jpg", label, client, number + 100 * (split == "test"))
                    lines.append(f"{image},verification,/m/{client}_{label},1\n")
            (root / "labels").mkdir(exist_ok=True)
            (root / "labels" / "classifications.csv").write_text("".join(lines), encoding="utf-8")
            (root / "metadata").mkdir(exist_ok=True)
            names = "".join(f"/m/{client}_{label},{name}\n" for label, name in enumerate(CLASSES))
            (root / "metadata" / "classes.csv").write_text(f"LabelName,DisplayName\n{names}", encoding="utf-8")


def _laboratories(folder: Path) -> None:
    """A folder for each laboratory, and the server's public images."""
    for number, laboratory in enumerate((*LABORATORIES, "public")):
        for label, name in enumerate(CLASSES):
            for image in range(NUM_TRAIN + NUM_TEST):
                _draw(folder / laboratory / name / f"{image}.jpg", label, number, image)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "": lambda folder: folder.mkdir(parents=True, exist_ok=True),
    "domainnet": _domainnet,
    "nico": _nico,
    "open-image": _open_image,
    "laboratories": _laboratories,
}
"""What `layout` in an experiment may be; empty: an embedded dataset."""
