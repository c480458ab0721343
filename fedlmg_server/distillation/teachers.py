"""Teachers of the student: none, all clients together, or for each image the client that guided it."""

from collections.abc import Callable, Iterator

import torch

from common.labels import maps
from common.storage.images import Images
from common.upload import Upload
from common.vision.metrics import predict_parts
from fedlmg_server.quarantine import ClientFault, is_servers_own
from fedlmg_server.run import Run

Read = Callable[[Images], Iterator[torch.Tensor]]
"""Of images uint8 (N, 3, h, w) one teacher's probabilities over the run's classes, in parts of float (B, classes)."""


def predict_with(run: Run, upload: Upload, images: Images) -> torch.Tensor:
    """One teacher's probabilities over the run's classes, float (N, classes), of images uint8 (N, 3, h, w)."""
    return torch.cat(list(_reader(run, upload)(images)))


def predict_with_all(run: Run, images: Images) -> dict[str, torch.Tensor]:
    """Client -> its probabilities, as `predict_with` returns them.

    Raises
    ------
    ClientFault: as `read_with_all`.
    """
    found: dict[str, torch.Tensor] = {}

    def keep(upload: Upload, read: Read) -> None:
        found[upload.client] = torch.cat(list(read(images)))

    read_with_all(run, keep)
    return found


def read_with_all(run: Run, use: Callable[[Upload, Read], None]) -> None:
    """Let each teacher read what `use` shows it. One teacher at a time is in memory.

    Raises
    ------
    ClientFault: classifiers fail on the images, or their output is not finite.
    """
    failed: dict[str, str] = {}
    for upload in run.uploads:
        try:
            use(upload, _reader(run, upload))
        except NotFiniteError:
            failed[upload.client] = "its classifier's output on synthetic images must be finite, but is not"
        except Exception as error:  # A builder of the operator's may raise anything.
            if is_servers_own(error):
                raise
            failed[upload.client] = f"its classifier fails on synthetic images ({type(error).__name__}: {error})"
    if failed:
        raise ClientFault(failed)


class NotFiniteError(ValueError):
    """A teacher's probabilities are not all numbers."""


def _reader(run: Run, upload: Upload) -> Read:
    classifier = upload.classifier(run.device)

    def read(images: Images) -> Iterator[torch.Tensor]:
        for local in predict_parts(classifier, upload.preprocess, images):
            if not local.isfinite().all():
                raise NotFiniteError
            yield maps.spread_probabilities(local, upload.class_names, run.class_names)

    return read


PART = 4096
"""Rows of targets that are worked on at once."""


def average(total: torch.Tensor, voters: torch.Tensor) -> torch.Tensor:
    """Sums of probabilities over as many voters, each class over those that know it, renormalised: (N, classes).

    voters: of each class, or (N, classes); a class without voters gets 0.
    """
    mean = total / voters.where(voters > 0, 1)
    return mean / mean.sum(1, keepdim=True)


def multi_teacher(
    per_client: dict[str, torch.Tensor], known: dict[str, torch.Tensor], weights: dict[str, float] | None = None
) -> torch.Tensor:
    """Mean of the clients' probabilities (paper, Eq. 12), each class over the clients that know it, renormalised.

    per_client: (N, classes) each; known: bool (classes,) each; weights: in [0, 1], 1 where not given.
    """
    votes = {client: 1.0 if weights is None else weights[client] for client in per_client}
    nothing = torch.zeros(())
    total = sum((votes[client] * probabilities for client, probabilities in per_client.items()), nothing)
    return average(total, sum((votes[client] * known[client] for client in per_client), nothing))


def multi_teacher_in_parts(
    run: Run, images: Images, labels: torch.Tensor, weights: dict[str, float], dtype: torch.dtype
) -> torch.Tensor:
    """As `multi_teacher`, `dtype` (N, classes), with one teacher's probabilities in memory at a time. Of an image only
    clients that know its class, `labels` (N,), speak, for the others could but be wrong (ours).

    Raises
    ------
    ClientFault: as `read_with_all`.
    """
    classes, known = len(run.class_names), run.known_classes
    total = torch.zeros(len(labels), classes)

    def add(upload: Upload, read: Read) -> None:
        votes, start = (weights[upload.client] * known[upload.client][labels])[:, None], 0
        for part in read(images):
            total[start : start + len(part)] += votes[start : start + len(part)] * part
            start += len(part)

    read_with_all(run, add)
    of_label = torch.zeros(classes, classes)
    for client, mask in known.items():
        of_label += weights[client] * mask[:, None] * mask
    for part, asked in zip(total.split(PART), labels.split(PART), strict=True):
        part.copy_(average(part, of_label[asked]))
    return total.to(dtype)
