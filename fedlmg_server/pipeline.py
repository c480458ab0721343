"""The server's stages after the uploads: validation, witness, synthesis, distillation. Data flows down this list.

Each stage reads what the stage before left in the workspace and skips what is already there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from common.storage.tensors import read_tensors
from fedlmg_server.baselines.virtual_run import has_virtual_clients
from fedlmg_server.collection.validation import validate_uploads
from fedlmg_server.distillation.aggregate import distil
from fedlmg_server.distillation.saved_model import is_model_saved, save_model
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.events import Loss, PlanMade, Progress
from fedlmg_server.quarantine import ClientFault, charge_failed, check_quorum
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents, launch, store, traces
from fedlmg_server.synthesis.following import Following
from fedlmg_server.witness.hearing import hear_clients
from fedlmg_server.workspace import METHODS


@dataclass(frozen=True)
class Aggregated:
    """What goes back to the clients."""

    arrays: dict[str, torch.Tensor]
    model_json: dict


def aggregate(run: Run) -> Aggregated:
    """From the uploads in the workspace to the aggregated model in `model/`.

    Raises
    ------
    ConfigError: fewer valid uploads than the quorum, or a setting that does not work out.
    """
    with run.workspace.stage("validation"):
        validate_uploads(run)
    check_quorum(run)
    hear_clients(run)
    synthesise(run)
    while not is_model_saved(run):
        try:
            with run.workspace.stage("distillation"):
                save_model(run, distil(run, read_synthetic_set(run), partial(_log_epoch, run)))
        except ClientFault as fault:
            charge_failed(run, fault.reasons)
            synthesise(run)
    return Aggregated(read_tensors(run.workspace.model / "model.safetensors")[0], run.model_description)


def _log_epoch(run: Run, entry: dict[str, float]) -> None:
    run.workspace.log(Loss(series="distillation", step=entry["epoch"], value=entry["loss"]))


def synthesise(run: Run) -> None:
    """Generate the missing images of every client, also without guidance where baselines are compared, on all of this
    machine's GPUs or cores. Clients whose images cannot be drawn are charged, and the run goes on without them.

    Raises
    ------
    ConfigError: fewer than `min-clients` uploads remain, or no client's images can be drawn.
    RuntimeError: a process failed, not because of a client.
    """
    incidents.clear(run.workspace)
    methods = METHODS if run.config.options.compare and has_virtual_clients(run) else METHODS[:1]
    missing = _find_missing(run, methods)
    while True:
        _draw(run, methods, missing)
        failed = incidents.read_failures(run.workspace)
        incidents.clear(run.workspace)
        if failed:
            charge_failed(run, failed)
        if not (missing := _find_missing(run, methods)):
            return
        if not failed:
            raise RuntimeError(f"the processes of synthesis ended, but lack images ({', '.join(missing)}): repeat it")


def _find_missing(run: Run, methods: Sequence[str]) -> list[str]:
    """The methods that lack images; what is there and not planned is removed first."""
    for method in methods:
        store.remove_unplanned(run, method)
    return [method for method in methods if not store.is_complete(run, method)]


def _draw(run: Run, methods: Sequence[str], missing: list[str]) -> None:
    """Generate the images that some methods lack, as far as clients let it, a stage for each of all methods."""
    workspace = run.workspace
    workspace.log(PlanMade(images=run.num_images, classes=len(run.class_names), methods=missing))
    with launch.start_workers(workspace, launch.num_processes(run), missing) as workers:
        for method in methods:
            following = Following(run, method)
            with workspace.stage(_stage_of(method)) as work:
                before = following.count()
                try:
                    progress = partial(_log_progress, run, method, following)
                    workers.wait(following.is_complete, following.count, progress)
                finally:
                    work.images = following.count() - before


def _stage_of(method: str) -> str:
    return "synthesis" if method == "fedlmg" else method


def _log_progress(run: Run, method: str, following: Following, completed: int) -> None:
    """Log how many images are there, and the newest losses of each client."""
    workspace = run.workspace
    workspace.log(Progress(stage=_stage_of(method), completed=completed, total=run.num_images, unit="images"))
    for client, losses in traces.newest_losses(run, method, following.loss_files()).items():
        for kind, value in losses.items():
            workspace.log(Loss(series=f"{kind}, {client}", step=completed, value=value))
