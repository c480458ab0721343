"""A finished model, loaded from its folder and ready to use: from pixels to class probabilities.

from common.models.predictor import load_classifier

model = load_classifier("runs/default")  # or a folder `model`, a client's cache, or its folder `personal`
for path, label, confidence in model.predict(["one.jpg", "two.png"]):
    print(path, label, confidence)
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from common.config.node import MAX_MEGAPIXELS
from common.datasets.readers.image_files import ImageError, read_image
from common.devices import limit_threads
from common.models import architectures
from common.storage.json_files import read_object
from common.storage.tensors import read_tensors
from common.telling import first_line
from common.vision.preprocessing import PreprocessSpec

BATCH_SIZE = 64
BROKEN = "get the model again, or name another"


class ModelError(ValueError):
    """The folder holds no usable model; the message is one sentence for the user."""


class Classifier(torch.nn.Module):
    """Preprocessing, network and softmax in one module, which can be exported as it is."""

    def __init__(self, network: torch.nn.Module, class_names: list[str], preprocessing: PreprocessSpec):
        super().__init__()
        self.network, self.class_names, self.preprocessing = network, class_names, preprocessing

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From RGB images of any size, uint8 (N, 3, H, W), to probabilities float32 (N, classes)."""
        size = self.preprocessing.image_size
        squares = F.interpolate(images.float() / 255, (size, size), mode="bilinear", antialias=True)
        probabilities: torch.Tensor = self.network(self.preprocessing.normalize(squares)).softmax(1)
        return probabilities

    @torch.inference_mode()
    def predict(
        self,
        paths: Iterable[Path | str],
        problems: list[str] | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> Iterator[tuple[Path, str, float]]:
        """Yield the path, class and confidence in [0, 1] of each image, in the given order.

        An image that cannot be read is skipped, and `problems` gets a line about it.

        Raises
        ------
        ImageError: an image cannot be read, and no list `problems` was given.
        """
        remaining = iter(paths)
        while batch := [Path(path) for path in islice(remaining, BATCH_SIZE)]:
            read, squares = [], []
            for path in batch:
                try:
                    squares.append(self.preprocessing.resize(read_image(path, max_megapixels).float() / 255))
                    read.append(path)
                except ImageError as error:
                    if problems is None:
                        raise ImageError(f"{path}: {error}") from None
                    problems.append(f"{path}: {error}")
            if read:
                images = torch.stack(squares).to(next(self.parameters()).device)
                confidences, labels = self.network(self.preprocessing.normalize(images)).softmax(1).max(1)
                names = (self.class_names[label] for label in labels.tolist())
                yield from zip(read, names, confidences.tolist(), strict=True)


def load_classifier(path: Path | str, builder: str | None = None) -> Classifier:
    """Load a model in float32 to the CPU, from its folder, a workspace, a client's cache, or the folder of an upload.

    A client's cache gives the personal model, or else the returned one.

    builder: the `package.module:function` that may be imported, if the architecture is the user's own.

    Raises
    ------
    ModelError: there is no model, the model is incomplete, or another builder is needed.
    """
    limit_threads()
    path = Path(path).expanduser()
    others = (path / "model", path / "personal", path / "aggregated", path.parent)
    files = [path / "model.json", path / "manifest.json", *(folder / "model.json" for folder in others)]
    if not (file := next(filter(Path.is_file, files), None)):
        raise ModelError(f"{path} holds no model.json: name a finished workspace or its folder `model`")
    try:
        description = read_object(file, BROKEN)
        preprocessing = PreprocessSpec.from_json(description["preprocessing"])
        network = architectures.build(
            str(description["architecture"]),
            len(description["class_names"]),
            preprocessing.image_size,
            [builder] if builder else (),
        )
        network.load_state_dict(read_tensors(file.parent / "model.safetensors")[0])
    except KeyError as error:
        raise ModelError(f"the model in {file.parent} cannot be loaded: {file} lacks {error}: {BROKEN}") from None
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"the model in {file.parent} cannot be loaded: {first_line(error)}") from None
    return Classifier(network.float(), list(description["class_names"]), preprocessing).eval()
