"""A tiny finished run: two clients, one with a hostile name, two classes, every file the page reads."""

import json
from pathlib import Path

from PIL import Image

from common import manifest
from common.manifest import Epoch
from common.names import safe_name
from fedlmg_server import results
from tests.manifests import make_manifest, make_training

HOSTILE = "<b>$x_$</b>"


def figures() -> dict:
    """Keyword arguments of `results.make_results`, as JSON."""
    client = {"architecture": "small_resnet", "num_examples": 40, "upload_bytes": 1_500_000}
    return {
        "seed": 3,
        "config": {"seed": 3, "aggregation": "fine-tuning"},
        "clients": {
            "mnist": client | {"own_accuracy": 0.91, "own_accuracy_all_clients": 0.4, "aggregated_accuracy": 0.873},
            HOSTILE: client
            | {"own_accuracy": 0.5, "aggregated_accuracy": 0.627}
            | {"images": {"generated": 4, "read_as_asked": 3, "kept": 2}},
        },
        "aggregated": {"aggregation": "fine-tuning", "architecture": "small_resnet", "accuracy": 0.75},
        "methods": {
            "centralised": {
                "accuracy": 0.952,
                "balanced_accuracy": 0.913,
                "per_client": {"mnist": 0.97, HOSTILE: 0.934},
            },
            "fedlmg-fine-tuning": {"accuracy": 0.75, "per_client": {"mnist": 0.873, HOSTILE: 0.627}},
            "fedavg": {"accuracy": 0.312, "per_client": {"mnist": 0.5}},
            "local-all": {"accuracy": 0.441, "per_client": {"mnist": 0.4, HOSTILE: 0.482}},
        },
        "synthesis": {
            **{"num_images": 8, "seconds": 2.0, "images_per_second": 4.0},
            "rejected": {HOSTILE: {"cat": {"confidence": 2}}},
        },
        "stages": {"upload": 60.0, "synthesis": 2.0},
        "missing": {"late": "no answer by the <deadline>"},
        "refused": {"broken": "weights hold a NaN"},
        "matrix": {"mnist": {"mnist": 0.91, HOSTILE: 0.12}, HOSTILE: {"mnist": 0.3, HOSTILE: 0.5}},
        "confusion": {
            "class_names": ["cat", "dog"],
            "counts": [[30, 10], [5, 15]],
            "per_client": {"mnist": [0.9, None], HOSTILE: [0.6, 0.75]},
            "images": {"mnist": [20, 0], HOSTILE: [20, 20]},
        },
    }


def warm_figures(**with_round: float) -> dict:
    """The same of a warm-started run. Client -> accuracy of its personal model, if it is not 0.834; without the round
    every client has 0.812."""
    warm = figures()
    told = {"general_accuracy": 0.7, "no_federation_accuracy": 0.812, "no_federation_accuracy_all_clients": 0.71}
    for name, client in warm["clients"].items():
        personal = {"personal_accuracy": with_round.get(name, 0.834), "personal_accuracy_all_clients": 0.79}
        warm["clients"][name] = client | told | personal
    return warm | {"general": {"source": "public", "num_images": 20_000}}


def make_workspace(root: Path) -> results.Results:
    """Write the run under `root`; returns its results."""
    for name, shade in (("mnist", 40), (HOSTILE, 200)):
        history = [Epoch(epoch=e, train_loss=2 / e, validation_accuracy=1 - 1 / e) for e in range(1, 4)]
        said = make_manifest(name, training=make_training(history=history))
        manifest.write(root / "uploads" / safe_name(name), said)
        for folder in ("synthetic", "synthetic-prompts-only"):
            for label in ("cat", "dog"):
                for seed in range(2):
                    path = root / folder / safe_name(name) / label / f"{seed}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (8, 8), (shade, 40 * seed, 90)).save(path)
        losses = {"images": 4, "noise editing": [9.0], "classification": [2.0, 1.0], "statistics": [8.0, 7.5]}
        write_json(root / "synthetic" / safe_name(name) / "losses-0.jsonl", losses)
        score = {"file": "cat/0.png", "class_name": "cat", "confidence": 0.875, "agrees": True}
        write_json(root / "synthetic" / safe_name(name) / "scores-0.jsonl", score)
    # Its next upload was valid, so that it is in the model.
    write_json(root / "quarantine" / "mnist" / "reason.json", {"reason": "its first upload was cut short"})
    write_json(root / "report" / "histories.json", {"fedlmg-fine-tuning": [{"epoch": 1, "loss": 0.5}]})
    write_json(root / "run.json", {"versions": {"torch": "2.99.1"}})
    return results.make_results(**figures())


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
