"""Models that a client keeps: a net with its description, as a folder, and how it does on the client's test images."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch

from common.clients.data import ClientData
from common.datasets.labeled_images import LabeledImages
from common.devices import default_device
from common.labels import maps
from common.models import architectures
from common.start import Start
from common.storage.atomic import write_json
from common.storage.json_files import read_object
from common.storage.tensors import read_tensors, write_tensors
from common.telling import ToldError, first_line
from common.upload import Upload
from common.vision.metrics import accuracy, balanced_accuracy, count_confusions, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client.measured import Measured

TROUBLE = (OSError, ValueError, RuntimeError, MemoryError)
"""What reading, making or measuring a model can raise: PyTorch raises a RuntimeError if the memory runs out."""
REMEDY = "remove the folder, and join again"


@dataclass(frozen=True)
class Model:
    """A classifier with all that is needed to build it."""

    architecture: str
    class_names: list[str]
    preprocess: PreprocessSpec
    arrays: dict[str, torch.Tensor] = field(repr=False)
    """Full state dict, in float32 or as it was sent."""

    @classmethod
    def described(cls, description: Mapping[str, Any], arrays: dict[str, torch.Tensor]) -> Self:
        """From a JSON object of architecture, class_names and preprocessing.

        Raises
        ------
        ValueError: it lacks one of these.
        """
        try:
            preprocess = PreprocessSpec.from_json(description["preprocessing"])
            return cls(str(description["architecture"]), list(description["class_names"]), preprocess, arrays)
        except (KeyError, TypeError) as error:
            raise ToldError(
                f"the description of the model is incomplete ({error})", "the description of a model is incomplete"
            ) from None

    @classmethod
    def of_upload(cls, upload: Upload) -> Self:
        return cls(upload.manifest.architecture, upload.class_names, upload.preprocess, upload.arrays)

    @classmethod
    def of_start(cls, start: Start) -> Self:
        """The general model of a start that has one."""
        ((architecture, arrays),) = start.models.items()
        return cls(architecture, list(start.class_names), start.preprocess, arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        Raises
        ------
        OSError, ValueError: the folder holds no model.
        """
        description, arrays = read_description(folder), read_tensors(folder / "model.safetensors")[0]
        try:
            return cls.described(description, arrays)
        except ValueError as error:
            raise ValueError(f"{folder / 'model.json'} cannot be used: {error}: {REMEDY}") from None

    def is_kept(self, folder: Path) -> bool:
        """Whether the folder holds this very model."""
        try:
            kept = Model.load(folder)
        except TROUBLE:
            return False
        is_described_alike = replace(kept, arrays={}) == replace(self, arrays={})
        if not is_described_alike or kept.arrays.keys() != self.arrays.keys():
            return False
        return all(torch.equal(kept.arrays[name], tensor) for name, tensor in self.arrays.items())

    def save(self, folder: Path, measured: Measured, **more: object) -> None:
        """Write the model, what was measured of it, and whatever else its description says.

        `model.json` is written last, so a folder that has one is complete.
        """
        (folder / "model.json").unlink(missing_ok=True)
        write_tensors(folder / "model.safetensors", self.arrays)
        measured.write(folder)
        described = {
            "architecture": self.architecture,
            "class_names": self.class_names,
            "preprocessing": self.preprocess.to_json(),
        }
        write_json(folder / "model.json", described | more)

    def build(self, builders: Collection[str]) -> torch.nn.Module:
        """The net in float32 and evaluation mode, on this machine's device.

        Raises
        ------
        ValueError: the architecture is unknown or its weights do not fit.
        """
        size = self.preprocess.image_size
        net = architectures.build(self.architecture, len(self.class_names), size, builders)
        try:
            net.load_state_dict(self.arrays)
        except RuntimeError as error:
            raise ToldError(
                f"the weights do not fit '{self.architecture}' ({first_line(error)})",
                "the weights of a model do not fit its architecture",
            ) from None
        return net.float().eval().to(default_device())


def read_description(folder: Path) -> dict[str, Any]:
    """What `model.json` in the folder says of its model.

    Raises
    ------
    OSError, ValueError: there is none, or it is no JSON object.
    """
    return read_object(folder / "model.json", REMEDY)


def evaluate(model: Model, data: ClientData, builders: Collection[str], aliases: dict[str, str]) -> Measured:
    """Measure the model on the client's test images; images of a class that the model lacks count as wrong."""
    net = model.build(builders)
    indices = maps.find_indices(data.class_names, model.class_names, aliases)
    measured, balanced, table = 0.0, 0.0, torch.zeros(len(data.class_names), len(model.class_names), dtype=torch.long)
    if len(data.test):
        probabilities = predict(net, model.preprocess, data.test.images)
        right = indices[data.test.labels]
        measured = accuracy(probabilities, right)
        balanced = balanced_accuracy(probabilities.argmax(1), right, data.test.labels)
        table = count_confusions(probabilities, data.test.labels, len(data.class_names))
    return Measured(
        client=data.name,
        accuracy=measured,
        balanced_accuracy=balanced,
        class_names=data.class_names,
        correct=indices.tolist(),
        confusion=table.tolist(),
    )


def save_general(start: Start, folder: Path, measured: Measured) -> None:
    """Keep a start with one general model; `load_general` reads it."""
    write_tensors(folder / "replay.safetensors", {"images": start.replay.images, "labels": start.replay.labels})
    Model.of_start(start).save(folder, measured, looks=start.looks)


def load_general(folder: Path) -> Start | None:
    """The start that was kept; None if there is none.

    Raises
    ------
    OSError, ValueError: its files cannot be read.
    """
    if not (folder / "model.json").is_file():
        return None
    model, looks = Model.load(folder), str(read_description(folder).get("looks", "none"))
    replay, _ = read_tensors(folder / "replay.safetensors")
    if not {"images", "labels"} <= replay.keys():
        raise ValueError(f"{folder / 'replay.safetensors'} lacks images or labels: {REMEDY}")
    images = LabeledImages(replay["images"], replay["labels"])
    return Start(model.class_names, model.preprocess, looks, {model.architecture: model.arrays}, images)
