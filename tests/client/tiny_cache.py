"""What a client keeps: its own upload's manifest, the returned model's description, and how that does here."""

from pathlib import Path

from common import manifest
from common.manifest import Epoch
from common.storage.atomic import write_json
from tests.manifests import make_manifest, make_training

HOSTILE = "<i>dog</i>"
MEASURED = {
    "client": "site-a",
    "accuracy": 0.75,
    "balanced_accuracy": 0.75,
    "class_names": ["Cat", HOSTILE],
    "correct": [0, 1],
    "confusion": [[9, 1, 0], [0, 6, 4]],
}


def make_cache(root: Path) -> Path:
    epoch = Epoch(epoch=1, train_loss=2.25, validation_accuracy=0.5)
    training = make_training(num_examples=30, test_accuracy=0.6, history=[epoch])
    manifest.write(root / "abc" / "upload", make_manifest(architecture="small_mlp", training=training))
    write_json(root / "aggregated" / "model.json", {"class_names": ["cat", HOSTILE, "emu"]})
    write_json(root / "aggregated" / "evaluation.json", MEASURED)
    return root
