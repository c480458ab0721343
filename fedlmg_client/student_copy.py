"""The second classifier of an upload: the student's architecture, trained from its general model, to be merged."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.clients.data import ClientData
from common.config.run import LocalTrainingConfig
from common.manifest import Membership, StudentCopy
from common.start import Start
from common.storage.atomic import write_json
from common.storage.tensors import read_tensors, write_tensors
from common.upload import Upload, weights_digest
from fedlmg_client import audit, finished, packing, training


@dataclass(frozen=True)
class Copy:
    """A trained copy, as it is sent."""

    arrays: dict[str, torch.Tensor] = field(repr=False)
    """Full state dict in the wire's dtypes."""
    said: StudentCopy
    """What the manifest says of it."""
    membership: Membership | None
    """How well an attack tells its training images; it stays on the client. None: too few images to measure it."""

    def add_to(self, upload: Upload) -> Upload:
        return upload.with_student_copy(self.arrays, self.said)


def train(
    data: ClientData,
    architecture: str,
    config: LocalTrainingConfig,
    seed: int,
    cache: Path,
    device: str | torch.device,
    start: Start,
    builders: frozenset[str] = frozenset(),
    looks: str = "digits",
) -> Copy:
    """Train the copy from the general model in `start`, or read the one that was trained before from `cache`.

    data: its classes are the start's. A checkpoint is written after each epoch, as for the client's own classifier.
    """
    folder = cache / training.cache_key(data, architecture, config, training.NO_PRIVACY, seed, start, looks)
    file, description = folder / "copy" / "model.safetensors", folder / "copy" / "copy.json"
    if description.exists():
        with finished.tell_damage(description.parent):
            content = json.loads(description.read_text(encoding="utf-8"))
            found = content["membership"] and Membership.model_validate(content["membership"])
            return Copy(read_tensors(file)[0], StudentCopy.model_validate(content["said"]), found)
    torch.manual_seed(seed)
    model = start.build(architecture, builders).to(device).to(memory_format=torch.channels_last)
    preprocess, name = start.preprocess, f"a copy of {architecture}"
    device = torch.device(device)
    progress = training.fit(model, data, preprocess, config, seed, folder, device, None, start, looks, name)
    arrays = packing.to_arrays(model, data.name)
    model.load_state_dict(arrays)
    said = StudentCopy(
        architecture=architecture,
        class_names=list(data.class_names),
        sha256=weights_digest(arrays),
        start=start.digest(architecture),
        validation_accuracy=progress["best"] if progress["best"] >= 0 else None,
        seconds=round(progress["seconds"], 3),
    )
    found = audit.measure_membership(model, preprocess, data.train, data.validation.join(data.test))
    write_tensors(file, arrays)
    write_json(description, {"said": said.to_json(), "membership": found and found.to_json()})
    training.remove_checkpoints(folder)
    return Copy(arrays, said, found)
