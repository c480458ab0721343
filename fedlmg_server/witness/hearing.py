"""Hear the witness on every client, by other processes, and go on without the clients that it finds mislabelled."""

from functools import partial

from common.devices import count_workers
from common.upload import Upload
from fedlmg_server.events import Note, Progress
from fedlmg_server.general.images import summarise
from fedlmg_server.quarantine import charge
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents, launch
from fedlmg_server.witness.judge import Finding
from fedlmg_server.witness.verdict import Verdict

MODULE = "fedlmg_server.witness.worker"
STAGE = "witness"
MOST_ACCUSED = 0.5
"""Share of the clients above which the server's own images may be mislabelled, so that nobody is left out."""


def hear_clients(run: Run) -> None:
    """Judge the clients that were not judged yet; leave out the mislabelled ones, or tell, as the config says.

    Where general images are drawn, the witness only tells: a diffusion model that took eosinophils for monocytes once
    accused an honest laboratory. A client whose classifiers fail here is not judged: they fail in the synthesis, too,
    and the client is charged there.

    Raises
    ------
    ConfigError: fewer than `min-clients` uploads remain.
    """
    if run.config.distillation.witness == "off":
        return
    incidents.clear(run.workspace)
    if missing := _count_missing(run):
        _start_workers(run, missing)
    accused = {
        client: f"{verdict.sentence()}; check whether class folders are mixed up"
        for client, verdict in verdicts(run).items()
        if verdict.state == "mislabelled"
    }
    too_many = len(accused) > MOST_ACCUSED * len(run.uploads)
    are_drawn = (summarise(run) or {}).get("source") == "unguided"
    if accused and run.config.distillation.witness == "leave-out" and not too_many and not are_drawn:
        known = "mislabelled, by all that this server knows of the classes"
        charge(run, {client: f"{known}: {reason}" for client, reason in accused.items()})
    else:
        _tell(run, accused, too_many, are_drawn)


def _tell(run: Run, accused: dict[str, str], too_many: bool, are_drawn: bool) -> None:
    """Log why each client may be mislabelled, and what else may be the cause.

    accused: client -> reason. too_many: of all clients. are_drawn: whether the general images are.
    """
    drawn = "; or the diffusion model mixes these classes up, as it drew the general images" if are_drawn else ""
    for client, reason in accused.items():
        run.workspace.log(Note(text=f"client '{client}' may be mislabelled: {reason}{drawn}"))
    if too_many:
        text = f"{len(accused)} of {len(run.uploads)} clients seem to be mislabelled, so that none is left out"
        run.workspace.log(Note(text=f"{text}: check this server's general images and its diffusion model"))


def verdicts(run: Run) -> dict[str, Verdict]:
    """Client -> what the witness found, for every client that was heard."""
    return {client: finding.verdict for client, finding in findings(run).items()}


def findings(run: Run) -> dict[str, Finding]:
    """Client -> all that the witness says; clients that were not heard are left out."""
    found = {upload.client: Finding.read(run.workspace, upload) for upload in run.uploads}
    return {client: finding for client, finding in found.items() if finding}


def _count_missing(run: Run) -> int:
    return sum(not is_heard(run, upload) for upload in run.uploads)


def is_heard(run: Run, upload: Upload) -> bool:
    """Whether it was, or cannot be: processes died of it."""
    return incidents.has_failed(run.workspace, upload.client) or Finding.read(run.workspace, upload) is not None


def _start_workers(run: Run, missing: int) -> None:
    workspace, processes = run.workspace, count_workers(missing)

    def on_progress(remaining: int) -> None:
        workspace.log(Progress(stage=STAGE, completed=missing - remaining, total=missing, unit="clients"))

    with workspace.stage(STAGE), launch.running(workspace, [MODULE, str(workspace.root)], STAGE, processes) as workers:
        try:
            workers.wait(lambda: not _count_missing(run), partial(_count_missing, run), on_progress)
        except RuntimeError as error:
            workspace.log(Note(text=f"not every client could be judged: {error}"))
