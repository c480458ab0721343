"""Teachers that read every view of an image that the student sees, not the image once (ours).

A student sees each image in other looks again and again. Its teacher may read such a view otherwise than the image, so
that its answer to the image is the wrong target for the view (function matching, arXiv 2106.05237).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from common.labels.maps import mark_known, to_global_indices
from common.upload import Upload

Reader = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Views float32 (B, 3, S, S) in [0, 1] on the device, and which rows of the set they show, int64 (B,) on the CPU ->
probabilities float32 (B, classes) there; a row of zeros stands for an image without a teacher."""

MOST_READERS = 16
"""Teachers that are held on the device at once. Those of more clients read every image once, before the training."""


@dataclass(frozen=True)
class Readers:
    """The teachers of one training set of N images."""

    uploads: list[Upload]
    class_names: list[str]
    votes: torch.Tensor
    """float32 (uploads, N), 0 or more: how much each of them says of each image."""

    def open(self, device: torch.device) -> Reader:
        nets = [upload.classifier(device) for upload in self.uploads]
        columns = [to_global_indices(upload.class_names, self.class_names).to(device) for upload in self.uploads]
        known = [mark_known(upload.class_names, self.class_names).to(device).float() for upload in self.uploads]

        @torch.no_grad()
        def read(views: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(len(views), len(self.class_names), device=device)
            voters = torch.zeros_like(total)
            for number, upload in enumerate(self.uploads):
                shown = self.votes[number, rows].nonzero().flatten()
                if not len(shown):
                    continue
                weight = self.votes[number, rows[shown]].to(device)[:, None]
                shown = shown.to(device)
                said = nets[number](upload.preprocess(views[shown])).float().softmax(1)
                spread = torch.zeros(len(shown), len(self.class_names), device=device)
                spread[:, columns[number]] = said
                # A classifier that fails on a view says nothing of it.
                weight = weight * spread.isfinite().all(1, keepdim=True)
                total[shown] += weight * spread.nan_to_num()
                voters[shown] += weight * known[number]
            mean = total / voters.where(voters > 0, 1)
            sums = mean.sum(1, keepdim=True)
            return mean / sums.where(sums > 0, 1)

        return read

    def choose(self, rows: torch.Tensor) -> "Readers":
        """Of a set that has these rows of this one, in that order."""
        return Readers(self.uploads, self.class_names, self.votes[:, rows])

    def join(self, votes: torch.Tensor) -> "Readers":
        """Of a set that has more images behind this one's; votes: float32 (uploads, M)."""
        return Readers(self.uploads, self.class_names, torch.cat([self.votes, votes], dim=1))
