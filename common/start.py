"""What the server sends to a client before it trains: general models to start from, and general images to replay.

Nothing in it comes from a client. A start travels as Flower records, in the TRAIN message and again, with the returned
model, in the EVALUATE message.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from common.datasets.labeled_images import LabeledImages
from common.models import architectures
from common.telling import first_line
from common.upload import weights_digest
from common.vision.looks import PROFILES
from common.vision.preprocessing import PreprocessSpec

PREFIX = "start"
"""The names of a start's records begin with it."""


class StartError(ValueError):
    """A start that cannot be used; the message says why, in a clause."""


@dataclass(frozen=True)
class Start:
    """General models of one or two architectures, and replay images, all of the same classes."""

    class_names: list[str]
    """The classes of the run, in the spelling that all clients share."""
    preprocess: PreprocessSpec
    looks: str
    """Profile by which replay images are varied (see `common/vision/looks.py`)."""
    models: dict[str, dict[str, torch.Tensor]] = field(repr=False)
    """Architecture -> state dict of its general model, float32, or float16 on the wire."""
    replay: LabeledImages = field(repr=False)
    """General images, uint8 (N, 3, image_size, image_size), labels in `class_names`; N may be 0."""

    def digest(self, architecture: str) -> str:
        """sha256 of the general model of one architecture: uploads that share it can be merged."""
        return weights_digest(self.models[architecture])

    def build(self, architecture: str, builders: frozenset[str] | set[str] = frozenset()) -> torch.nn.Module:
        """The general model of one architecture, in float32.

        Raises
        ------
        StartError: there is none of that architecture, or its weights do not fit.
        """
        if architecture not in self.models:
            raise StartError(f"the server offers no general model of '{architecture}'")
        try:
            model = architectures.build(architecture, len(self.class_names), self.preprocess.image_size, builders)
            model.load_state_dict(self.models[architecture])
        except (ValueError, RuntimeError) as error:
            raise StartError(f"the general model does not fit '{architecture}' ({first_line(error)})") from None
        return model.float()

    def to_records(self) -> RecordDict:
        """One array record for each model, one for the replay images, and a description as JSON."""
        names = list(self.models)
        described = {
            "class_names": self.class_names,
            "preprocessing": self.preprocess.to_json(),
            "looks": self.looks,
            "architectures": names,
        }
        records = RecordDict({PREFIX: ConfigRecord({"json": json.dumps(described)})})
        for number, name in enumerate(names):
            records[f"{PREFIX}-model-{number}"] = ArrayRecord(self.models[name])
        replay = {"images": self.replay.images.contiguous(), "labels": self.replay.labels}
        records[f"{PREFIX}-replay"] = ArrayRecord(replay)
        return records

    @classmethod
    def from_records(cls, records: RecordDict) -> "Start | None":
        """The start in a message; None if it holds none.

        Raises
        ------
        StartError: the records are not those of a start.
        """
        if PREFIX not in records.config_records:
            return None
        try:
            described: dict[str, Any] = json.loads(str(records.config_records[PREFIX]["json"]))
            models = {
                str(name): dict(records.array_records[f"{PREFIX}-model-{number}"].to_torch_state_dict())
                for number, name in enumerate(described["architectures"])
            }
            arrays = records.array_records[f"{PREFIX}-replay"].to_torch_state_dict()
            replay = LabeledImages(arrays["images"], arrays["labels"])
            names, looks = [str(name) for name in described["class_names"]], str(described["looks"])
            start = cls(names, PreprocessSpec.from_json(described["preprocessing"]), looks, models, replay)
        except (KeyError, TypeError, ValueError) as error:
            raise StartError(f"its records are not those of a start ({type(error).__name__}: {error})") from None
        start.check()
        return start

    def check(self) -> None:
        """
        Raises
        ------
        StartError: looks, replay images or labels that cannot be.
        """
        images, labels = self.replay.images, self.replay.labels
        size = self.preprocess.image_size
        if self.looks not in PROFILES:
            raise StartError(f"its looks must be one of {', '.join(PROFILES)}, got {self.looks!r}")
        if images.dtype != torch.uint8 or list(images.shape) != [len(labels), 3, size, size]:
            raise StartError(
                f"its replay images must be uint8 ({len(labels)}, 3, {size}, {size}), got {images.dtype} "
                f"{tuple(images.shape)}"
            )
        if labels.dtype != torch.int64 or (
            len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names)
        ):
            raise StartError("a label of its replay images is no class of the start")

    @property
    def num_bytes(self) -> int:
        """Bytes of models and replay images on the wire."""
        tensors = [tensor for state in self.models.values() for tensor in state.values()] + [self.replay.images]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
