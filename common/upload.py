"""One client's upload: weights, feature statistics and a manifest, as a Flower RecordDict or as a folder.

Manifest keys: `schema`, `client`, `architecture`, `class_names`, `class_counts` (images a class in training),
`preprocessing`, `training` (`num_examples`, `validation_accuracy`, `test_accuracy` as trained, `test_accuracy_wire` as
uploaded, `seconds`, `history`: one `{"epoch", "train_loss", "validation_accuracy"}` an epoch; an accuracy is null where
there is no image to measure it on), `upload_dtype`, `data` (`digits/<virtual client>` or `folder`), `sha256` of the
weights.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from safetensors.torch import save

from common import architectures, labels
from common.checkpoint import read_tensors, write_json, write_tensors
from common.preprocessing import PreprocessSpec
from common.statistics import FeatureStatistics, from_tensors, to_tensors

SCHEMA = 1


def weights_digest(arrays: dict[str, torch.Tensor]) -> str:
    """sha256 of the weights in safetensors form."""
    return hashlib.sha256(save({name: tensor.contiguous() for name, tensor in sorted(arrays.items())})).hexdigest()


@dataclass(frozen=True)
class Upload:
    arrays: dict[str, torch.Tensor]
    """Full state dict, floating point in the wire's dtype, 0-dim buffers kept."""
    statistics: FeatureStatistics
    manifest: dict

    @property
    def client(self) -> str:
        return self.manifest["client"]

    @property
    def class_names(self) -> list[str]:
        return list(self.manifest["class_names"])

    def spelling(self, class_names: list[str]) -> "Upload":
        """The same with its classes spelt as all clients' are."""
        return replace(self, manifest=self.manifest | {"class_names": class_names})

    @property
    def preprocess(self) -> PreprocessSpec:
        return PreprocessSpec.from_json(self.manifest["preprocessing"])

    @property
    def num_bytes(self) -> int:
        """Bytes of weights and statistics on the wire."""
        tensors = [*self.arrays.values(), *to_tensors(self.statistics).values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def classifier(self, device: str | torch.device = "cpu") -> torch.nn.Module:
        """The client's classifier in float32, frozen, in evaluation mode."""
        model = architectures.build(self.manifest["architecture"], len(self.class_names))
        model.load_state_dict(self.arrays)
        return model.float().eval().requires_grad_(False).to(device)

    def to_records(self) -> RecordDict:
        return RecordDict(
            {
                "arrays": ArrayRecord(self.arrays),
                "statistics": ArrayRecord(to_tensors(self.statistics)),
                "manifest": ConfigRecord({"json": json.dumps(self.manifest)}),
            }
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> "Upload":
        return cls(
            records["arrays"].to_torch_state_dict(),
            from_tensors(dict(records["statistics"].to_torch_state_dict())),
            json.loads(records["manifest"]["json"]),
        )

    def save(self, folder: Path) -> None:
        """The manifest is written last: a folder with a manifest is whole."""
        write_tensors(folder / "model.safetensors", self.arrays)
        write_tensors(folder / "statistics.safetensors", to_tensors(self.statistics))
        write_json(folder / "manifest.json", self.manifest)

    @classmethod
    def load(cls, folder: Path) -> "Upload":
        arrays, _ = read_tensors(folder / "model.safetensors")
        statistics, _ = read_tensors(folder / "statistics.safetensors")
        return cls(arrays, from_tensors(statistics), json.loads((folder / "manifest.json").read_text()))


def is_whole(folder: Path) -> bool:
    return (folder / "manifest.json").exists()


def load_all(folder: Path, aliases: dict[str, str]) -> Iterator[Upload]:
    """Every whole upload of a folder, one in memory at a time, class names in the spelling that all share."""
    folders = sorted(filter(is_whole, folder.iterdir()))
    manifests = {path.name: json.loads((path / "manifest.json").read_text()) for path in folders}
    spelt = labels.in_one_spelling({name: manifest["class_names"] for name, manifest in manifests.items()}, aliases)
    for path in folders:
        yield Upload.load(path).spelling(spelt[path.name])
