"""Who teaches the student: nobody, all clients together, or for each image the client that guided it."""

import torch

from common.labels import maps
from common.upload import Upload
from common.vision.metrics import predict
from fedlmg_server.quarantine import ClientFault, is_servers_own
from fedlmg_server.run import Run


def predict_with(run: Run, upload: Upload, images: torch.Tensor) -> torch.Tensor:
    """One teacher's probabilities over the run's classes, float (N, classes), of images uint8 (N, 3, h, w)."""
    local = predict(upload.classifier(run.device), upload.preprocess, images)
    return maps.spread_probabilities(local, upload.class_names, run.class_names)


def predict_with_all(run: Run, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Client -> its probabilities, as `predict_with` returns them.

    Raises
    ------
    ClientFault: classifiers fail on the images, or their output is not finite.
    """
    found, failed = {}, {}
    for upload in run.uploads:
        try:
            found[upload.client] = predict_with(run, upload, images)
        except Exception as error:  # A builder of the operator's may raise anything.
            if is_servers_own(error):
                raise
            failed[upload.client] = f"its classifier fails on synthetic images ({type(error).__name__}: {error})"
            continue
        if not found[upload.client].isfinite().all():
            failed[upload.client] = "its classifier's output on synthetic images must be finite, but is not"
    if failed:
        raise ClientFault(failed)
    return found


def multi_teacher(
    per_client: dict[str, torch.Tensor],
    known: dict[str, torch.Tensor],
    weights: dict[str, float] | None = None,
    labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean of the clients' probabilities (paper, Eq. 12), each class over the clients that know it, renormalised.

    per_client: (N, classes) each; known: bool (classes,) each; weights: in [0, 1], 1 where not given; labels: (N,),
    the images' classes, of which only clients that know them speak, for the others could but be wrong (ours).
    """
    votes = {}
    for client, mask in known.items():
        vote = torch.full((len(per_client[client]), 1), 1.0 if weights is None else weights[client])
        votes[client] = vote if labels is None else vote * mask[labels][:, None]
    nothing = torch.zeros(())
    total = sum((votes[client] * probabilities for client, probabilities in per_client.items()), nothing)
    voters = sum((votes[client] * mask for client, mask in known.items()), nothing)
    mean = total / voters.where(voters > 0, 1)
    return mean / mean.sum(1, keepdim=True)


def specific_teacher(per_client: dict[str, torch.Tensor], clients: list[str]) -> torch.Tensor:
    """For each image the probabilities of the client it was generated for (paper, Eq. 13); clients: N names."""
    return torch.stack([per_client[client][row] for row, client in enumerate(clients)])
