"""Teachers that read every view of an image that the student sees, not the image once (ours).

A student sees each image in other looks again and again. Its teacher may read such a view otherwise than the image, so
that its answer to the image is the wrong target for the view (function matching, arXiv 2106.05237).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from safetensors.torch import load, save

from common.devices import training_precision
from common.labels.maps import mark_known, to_global_indices
from common.models import architectures
from common.upload import Upload
from common.vision.preprocessing import PreprocessSpec

Reader = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Views float32 (B, 3, S, S) in [0, 1] on the device, and which rows of the set they show, int64 (B,) on the CPU ->
probabilities float32 (B, classes) there; a row of zeros stands for an image without a teacher."""

MOST_READERS, MOST_BYTES = 16, 2**31
"""Teachers that are held on the device at once, and bytes of their weights. Others read every image once, before the
training."""


@dataclass(frozen=True)
class Teacher:
    """A classifier as a process is sent it: its weights are one tensor, for each takes a file descriptor."""

    architecture: str
    class_names: list[str]
    preprocess: PreprocessSpec
    builders: frozenset[str]
    weights: torch.Tensor
    """uint8, a safetensors file."""

    @classmethod
    def of(cls, upload: Upload) -> Self:
        arrays = {name: tensor.contiguous() for name, tensor in upload.arrays.items()}
        weights = torch.frombuffer(bytearray(save(arrays)), dtype=torch.uint8)
        architecture = upload.manifest.architecture
        return cls(architecture, upload.class_names, upload.preprocess, frozenset(upload.builders), weights)

    def build(self, device: torch.device) -> torch.nn.Module:
        """In float32, frozen, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            size = self.preprocess.image_size
            model = architectures.build(self.architecture, len(self.class_names), size, self.builders)
        model.load_state_dict(load(self.weights.numpy().tobytes()))
        return model.float().eval().requires_grad_(False).to(device)


@dataclass(frozen=True)
class Readers:
    """The teachers of one training set of N images."""

    teachers: list[Teacher]
    class_names: list[str]
    votes: torch.Tensor
    """float32 (teachers, N), 0 or more: how much each of them says of each image."""

    @classmethod
    def of(cls, uploads: list[Upload], class_names: list[str], votes: torch.Tensor) -> Self | None:
        """Of the uploads that say anything; None if these are too many or too large."""
        speaking = votes.any(dim=1)
        chosen = [upload for upload, speaks in zip(uploads, speaking.tolist(), strict=True) if speaks]
        size = sum(tensor.numel() * tensor.element_size() for upload in chosen for tensor in upload.arrays.values())
        if len(chosen) > MOST_READERS or size > MOST_BYTES:
            return None
        return cls([Teacher.of(upload) for upload in chosen], class_names, votes[speaking])

    def choose(self, rows: torch.Tensor) -> Self:
        """Of a set that has these rows of this one, in that order."""
        return type(self)(self.teachers, self.class_names, self.votes[:, rows])

    def open(self, device: torch.device) -> Reader:
        nets = [teacher.build(device) for teacher in self.teachers]
        dtypes = [
            training_precision(net, teacher.preprocess.image_size, device)
            for net, teacher in zip(nets, self.teachers, strict=True)
        ]
        columns = [to_global_indices(teacher.class_names, self.class_names).to(device) for teacher in self.teachers]
        known = [mark_known(teacher.class_names, self.class_names).to(device).float() for teacher in self.teachers]

        @torch.no_grad()
        def read(views: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(len(views), len(self.class_names), device=device)
            voters = torch.zeros_like(total)
            for number, teacher in enumerate(self.teachers):
                votes = self.votes[number, rows]
                shown = votes.nonzero().flatten()
                if not len(shown):
                    continue
                weight = votes[shown, None].to(device, non_blocking=True)
                shown = shown.to(device, non_blocking=True)
                with torch.autocast(device.type, dtypes[number], enabled=dtypes[number] != torch.float32):
                    said = _ask(nets[number], teacher.preprocess(views[shown]))
                if said is None:
                    continue
                spread = torch.zeros(len(shown), len(self.class_names), device=device)
                spread[:, columns[number]] = said
                weight = weight * spread.isfinite().all(1, keepdim=True)
                total[shown] += weight * spread.nan_to_num()
                voters[shown] += weight * known[number]
            mean = total / voters.where(voters > 0, 1)
            sums = mean.sum(1, keepdim=True)
            return mean / sums.where(sums > 0, 1)

        return read


def _ask(net: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor | None:
    """Probabilities (B, classes); None if the classifier fails, which one that read all images before may still do on a
    batch of one."""
    try:
        return net(inputs).float().softmax(1)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # A builder of the operator's may raise anything.
        return None
