"""One client's upload: weights, feature statistics and a manifest, as a Flower RecordDict or as a folder."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from safetensors.torch import save

from common import labels, manifest
from common.config import Config
from common.manifest import Manifest, ManifestError, StudentCopy
from common.models import architectures
from common.models.feature_statistics import FeatureStatistics, from_tensors, to_tensors
from common.models.heads import keep_outputs
from common.storage.tensors import read_tensors, write_tensors
from common.vision.preprocessing import PreprocessSpec

STUDENT_COPY = "student-copy.safetensors"
WIRE_BYTES = 2
"""Of a weight on the wire, in float16."""


def weights_digest(arrays: dict[str, torch.Tensor]) -> str:
    """sha256 of the weights in safetensors form."""
    return hashlib.sha256(save({name: tensor.contiguous() for name, tensor in sorted(arrays.items())})).hexdigest()


def to_wire(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to the CPU; floating-point tensors become float16, integer and 0-dim tensors keep their dtype.

    A tensor with a finite value that float16 cannot hold, beyond 65,504, becomes float32.
    """
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or not tensor.dim():
        return tensor.clone()
    half = tensor.half()
    return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor.float().clone()


@dataclass(frozen=True)
class Upload:
    """What a client sends: a trained classifier, the statistics of its features, and how it was made."""

    arrays: dict[str, torch.Tensor]
    """Full state dict, floating point in the wire's dtype, 0-dim buffers kept."""
    statistics: FeatureStatistics
    manifest: Manifest
    builders: frozenset[str] = frozenset()
    """Builders that the reader trusts; an upload that names another is not built (see `architectures.build`)."""
    student_copy: dict[str, torch.Tensor] = field(default_factory=dict)
    """Full state dict of the manifest's `student_copy`, likewise; empty where the manifest names none."""

    @property
    def client(self) -> str:
        return self.manifest.client

    @property
    def class_names(self) -> list[str]:
        return list(self.manifest.class_names)

    @property
    def held_class_names(self) -> list[str]:
        return self.manifest.held_class_names

    def spelling(self, class_names: list[str]) -> "Upload":
        """The same with its classes spelt as all clients' are."""
        return replace(self, manifest=self.manifest.model_copy(update={"class_names": class_names}))

    def without_classes(self, left_out: Collection[str]) -> "Upload":
        """The same as if the classifier had never known some of its classes: they have no output and no statistics. Its
        checksum remains that of what the client sent.

        Raises
        ------
        ValueError: no class remains, or the classifier's outputs are not the rows of one layer.
        """
        names = self.class_names
        if not (rows := [number for number, name in enumerate(names) if name not in left_out]):
            raise ValueError("no class remains")
        if len(rows) == len(names):
            return self
        kept = {
            "class_names": [names[row] for row in rows],
            "class_counts": [self.manifest.class_counts[row] for row in rows],
        }
        return replace(
            self,
            arrays=keep_outputs(self.classifier(), self.arrays, torch.tensor(rows), len(names)),
            statistics={layer: moments.of_classes(torch.tensor(rows)) for layer, moments in self.statistics.items()},
            manifest=self.manifest.model_copy(update=kept),
        )

    def with_arrays(self, arrays: dict[str, torch.Tensor]) -> "Upload":
        """The same with other weights, and their checksum."""
        checksum = weights_digest(arrays)
        return replace(self, arrays=arrays, manifest=self.manifest.model_copy(update={"sha256": checksum}))

    def with_student_copy(self, arrays: dict[str, torch.Tensor], said: StudentCopy) -> "Upload":
        """The same with a second classifier; `said` describes it, but for its checksum, which is computed."""
        described = said.model_copy(update={"sha256": weights_digest(arrays)})
        return replace(self, student_copy=arrays, manifest=self.manifest.model_copy(update={"student_copy": described}))

    @property
    def preprocess(self) -> PreprocessSpec:
        return PreprocessSpec.from_json(self.manifest.preprocessing.to_json())

    @property
    def num_bytes(self) -> int:
        """Bytes of weights and statistics on the wire."""
        tensors = [*self.arrays.values(), *to_tensors(self.statistics).values(), *self.student_copy.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def classifier(self, device: str | torch.device = "cpu") -> torch.nn.Module:
        """The client's classifier in float32, frozen, in evaluation mode."""
        size = self.preprocess.image_size
        model = architectures.build(self.manifest.architecture, len(self.class_names), size, self.builders)
        model.load_state_dict(self.arrays)
        return model.float().eval().requires_grad_(False).to(device)

    def to_records(self) -> RecordDict:
        records = RecordDict(
            {
                "arrays": ArrayRecord(self.arrays),
                "statistics": ArrayRecord(to_tensors(self.statistics)),
                "manifest": ConfigRecord({"json": self.manifest.to_text()}),
            }
        )
        if self.student_copy:
            records["student-copy"] = ArrayRecord(self.student_copy)
        return records

    @classmethod
    def from_records(cls, records: RecordDict) -> "Upload":
        """
        Raises
        ------
        ManifestError: the manifest is none.
        ValueError: the records are not those of an upload.
        """
        try:
            student_copy = records.array_records.get("student-copy")
            return cls(
                dict(records.array_records["arrays"].to_torch_state_dict()),
                from_tensors(dict(records.array_records["statistics"].to_torch_state_dict())),
                manifest.parse(records.config_records["manifest"]["json"]),
                student_copy={} if student_copy is None else dict(student_copy.to_torch_state_dict()),
            )
        except ManifestError:
            raise
        except Exception as error:  # Whatever a stranger's bytes make numpy, torch or json raise.
            raise ValueError(f"its records are not those of an upload ({type(error).__name__}: {error})") from None

    def save(self, folder: Path) -> None:
        """The manifest is written last: a folder with a manifest is whole."""
        write_tensors(folder / "model.safetensors", self.arrays)
        write_tensors(folder / "statistics.safetensors", to_tensors(self.statistics))
        if self.student_copy:
            write_tensors(folder / STUDENT_COPY, self.student_copy)
        manifest.write(folder, self.manifest)

    @classmethod
    def load(cls, folder: Path, builders: frozenset[str] = frozenset()) -> "Upload":
        """
        Raises
        ------
        ManifestError: the manifest is none.
        ValueError: another file is not what `save` writes.
        """
        arrays, _ = read_tensors(folder / "model.safetensors")
        statistics, _ = read_tensors(folder / "statistics.safetensors")
        found = manifest.read(folder)
        student_copy = read_tensors(folder / STUDENT_COPY)[0] if found.student_copy else {}
        return cls(arrays, from_tensors(statistics), found, builders, student_copy)


def sizes(records: RecordDict) -> dict[str, int]:
    """Bytes of each part of an upload's records, `record/name`, as they stand: nothing is decoded."""
    tensors = {
        f"{key}/{name}": len(array.data) for key, r in records.array_records.items() for name, array in r.items()
    }
    texts = {f"{key}/{name}": value for key, r in records.config_records.items() for name, value in r.items()}
    lengths = {
        name: len(text.encode() if isinstance(text, str) else text)
        for name, text in texts.items()
        if isinstance(text, str | bytes)
    }
    return tensors | lengths


def megabytes(records: RecordDict) -> float:
    """Size of an upload's records in MB (10**6 bytes)."""
    return sum(sizes(records).values()) / 1e6


def is_whole(folder: Path) -> bool:
    return (folder / "manifest.json").exists()


def load_all(
    folder: Path,
    config: Config,
    class_names: list[str] | None = None,
    left_out: Mapping[str, Collection[str]] | None = None,
) -> Iterator[Upload]:
    """Every whole upload of a folder, one in memory at a time, class names in the spelling that all share.

    class_names: classes whose spelling wins. left_out: folder name -> classes of that upload that are left out.
    """
    folders = sorted(filter(is_whole, folder.glob("*")))
    without = {path.name: (left_out or {}).get(path.name, ()) for path in folders}
    said = {path.name: manifest.read(path).class_names for path in folders}
    names = {name: [each for each in said[name] if each not in without[name]] for name in said}
    aliases = labels.parse_aliases(config.clients.class_aliases)
    spelt = labels.in_one_spelling({"": class_names or [], **names}, aliases)
    for path in folders:
        yield Upload.load(path, config.builders).without_classes(without[path.name]).spelling(spelt[path.name])
