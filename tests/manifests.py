"""Manifests and uploads that say what a test needs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.config import Config
from common.manifest import SCHEMA, Epoch, Manifest, Preprocessing, Training
from common.upload import Upload
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.collection.upload_checks import check_upload
from fedlmg_server.collection.validation import load_upload


def make_manifest(client: str = "site-a", class_names: Sequence[str] = ("cat", "dog"), **changes: object) -> Manifest:
    said = {
        "architecture": "small_resnet",
        "class_names": list(class_names),
        "class_counts": [1] * len(class_names),
        "preprocessing": Preprocessing(**PreprocessSpec().to_json()),
        "training": make_training(num_examples=len(class_names)),
        "data": "folder",
        "sha256": "0",
    }
    return Manifest(schema_version=SCHEMA, client=client, **{**said, **changes})


def make_training(epochs: int = 0, **changes: object) -> Training:
    said: dict = {"num_examples": 2, "validation_accuracy": 0.5, "test_accuracy": 0.5}
    said["history"] = [Epoch(epoch=epoch + 1) for epoch in range(epochs)]
    return Training(**{**said, **changes})


def saying(upload: Upload, **changes: object) -> Upload:
    """The same upload with other values in its manifest."""
    return replace(upload, manifest=upload.manifest.model_copy(update=changes))


def receive(folder: Path, upload: Upload, manifest: object, config: Config | None = None) -> None:
    """Read and check an upload as the server does, with any JSON value for its manifest."""
    upload.save(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = config or Config()
    check_upload(load_upload(folder, config), config)
