"""Which uploads are fit to guide and to teach; the others go to quarantine with a reason, and the run goes on."""

import os
import shutil

import torch

from common import architectures
from common.checkpoint import write_json
from common.upload import SCHEMA, Upload, is_whole, weights_digest
from common.workspace import Workspace


class Refused(ValueError):
    """One sentence: why an upload is unfit."""


def admit(workspace: Workspace) -> tuple[list[Upload], dict[str, str]]:
    """Every fit upload in the workspace, by client name, and the reasons of the refused ones by client."""
    admitted, refused = [], {}
    for folder in sorted(workspace.uploads.iterdir()):
        if not is_whole(folder):
            continue
        try:
            upload = Upload.load(folder)
            check(upload)
            admitted.append(upload)
        except (Refused, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            reason = str(error) if isinstance(error, Refused) else f"unreadable upload: {type(error).__name__}: {error}"
            refused[folder.name] = reason
            quarantine(workspace, folder.name, reason)
    for folder in workspace.quarantine.glob("*/reason.json"):
        refused.setdefault(folder.parent.name, "refused in an earlier run: see " + str(folder))
    return admitted, refused


def quarantine(workspace: Workspace, client: str, reason: str) -> None:
    target = workspace.quarantine / client
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(workspace.uploads / client, target)
    write_json(target / "reason.json", {"reason": reason})
    workspace.log("client", name=client, state="quarantined", reason=reason)


def check(upload: Upload) -> None:
    """Raises Refused, naming the client, unless the upload is what its manifest says and can be used."""
    manifest, name = upload.manifest, upload.manifest["client"]
    if manifest["schema"] != SCHEMA:
        raise Refused(f"client '{name}' uploaded schema {manifest['schema']}; this server reads {SCHEMA}")
    classes = upload.class_names
    if (
        not classes
        or len(set(classes)) != len(classes)
        or not all(isinstance(label, str) and label for label in classes)
    ):
        raise Refused(f"client '{name}' names its classes {classes}: they must be non-empty and differ")
    if manifest["architecture"] not in architectures.names():
        raise Refused(f"client '{name}' uploaded a '{manifest['architecture']}', which this server does not know")
    if weights_digest(upload.arrays) != manifest["sha256"]:
        raise Refused(
            f"the weights of client '{name}' are not those that its manifest signs: ask it to send them again"
        )
    _check_arrays(upload, name)
    _check_statistics(upload, name)
    _check_forward(upload, name)


def _check_arrays(upload: Upload, name: str) -> None:
    with torch.device("meta"):
        expected = architectures.build(upload.manifest["architecture"], len(upload.class_names)).state_dict()
    if different := sorted(set(expected) ^ set(upload.arrays)):
        raise Refused(f"client '{name}': weights do not fit the architecture, first at '{different[0]}'")
    for key, tensor in upload.arrays.items():
        if tensor.shape != expected[key].shape:
            raise Refused(f"client '{name}': '{key}' has shape {list(tensor.shape)}, not {list(expected[key].shape)}")
        if not torch.isfinite(tensor.float()).all():
            raise Refused(f"client '{name}': '{key}' has values that are not finite")


def _check_statistics(upload: Upload, name: str) -> None:
    layers = dict(upload.classifier().named_modules())
    for layer, moments in upload.statistics.items():
        if layer not in layers:
            raise Refused(f"client '{name}': statistics of an unknown layer '{layer}'")
        if moments.mean.shape != moments.variance.shape or moments.mean.dim() != 1:
            raise Refused(f"client '{name}': statistics of '{layer}' are not two vectors of one length")
        if not (torch.isfinite(moments.mean).all() and torch.isfinite(moments.variance).all()):
            raise Refused(f"client '{name}': statistics of '{layer}' are not finite")
        if (moments.variance < 0).any():
            raise Refused(f"client '{name}': a variance of '{layer}' is negative")


@torch.no_grad()
def _check_forward(upload: Upload, name: str) -> None:
    size = upload.preprocess.image_size
    noise = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = upload.classifier()(upload.preprocess(noise))
    if not torch.isfinite(logits).all():
        raise Refused(f"client '{name}': its classifier's output on noise is not finite")
    if logits.std(0).max() == 0:
        raise Refused(f"client '{name}': its classifier says the same of every image")
