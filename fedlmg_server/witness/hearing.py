"""Hear the witness on every client, by other processes, and go on without the clients that it finds mislabelled."""

from dataclasses import replace
from functools import partial

import torch

from common.labels import class_key, parse_aliases
from common.processes import num_processors
from common.upload import Upload
from fedlmg_server.events import Note, Progress
from fedlmg_server.quarantine import charge
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents, launch
from fedlmg_server.witness.judge import Finding
from fedlmg_server.witness.verdict import Verdict, is_shared

MODULE = "fedlmg_server.witness.worker"
STAGE = "witness"
MOST_ACCUSED = 0.5
"""Share of the clients above which the server's own images may be mislabelled, so that nobody is left out."""


def hear_clients(run: Run) -> None:
    """Judge the clients that were not judged yet; leave out the mislabelled ones, or tell, as the config says. A client
    whose classifiers fail here is not judged: they fail in the synthesis, too, and are charged there.

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
    check = "check this server's general images and its diffusion model"
    told = [client for client, finding in _read_findings(run).items() if finding.verdict.state == "mislabelled"]
    if doubted := [client for client in told if client not in accused]:
        text = f"{', '.join(doubted)}: labels may be mixed up, but half of the other clients lean the same way"
        run.workspace.log(Note(text=f"{text}, so that nobody is left out: {check}"))
    spared = len(accused) > MOST_ACCUSED * len(run.uploads)
    if accused and run.config.distillation.witness == "leave-out" and not spared:
        known = "mislabelled, by all that this server knows of the classes"
        charge(run, {client: f"{known}: {reason}" for client, reason in accused.items()})
        return
    for client, reason in accused.items():
        run.workspace.log(Note(text=f"client '{client}' may be mislabelled: {reason}"))
    if spared:
        text = f"{len(accused)} of {len(run.uploads)} clients seem to be mislabelled, so that none is left out"
        run.workspace.log(Note(text=f"{text}: {check}"))


def verdicts(run: Run) -> dict[str, Verdict]:
    """Client -> what the witness found, for every client that was heard."""
    return {client: finding.verdict for client, finding in findings(run).items()}


def findings(run: Run) -> dict[str, Finding]:
    """Client -> all that the witness says; clients that were not heard are left out. No client is accused where half of
    the others lean as it does."""
    found = _read_findings(run)
    return {client: _doubt(run, client, finding, found) for client, finding in found.items()}


def _read_findings(run: Run) -> dict[str, Finding]:
    found = {upload.client: Finding.read(run.workspace, upload) for upload in run.uploads}
    return {client: finding for client, finding in found.items() if finding}


def _doubt(run: Run, client: str, finding: Finding, found: dict[str, Finding]) -> Finding:
    """The finding, without an accusation that as many others earn."""
    aliases = parse_aliases(run.config.clients.class_aliases)
    mistaken = finding.verdict.mistaken.items()
    swaps = [(class_key(like, aliases), class_key(label, aliases)) for label, like in mistaken]
    others = [each.leans for other, each in found.items() if other != client and each.reads_general is not None]
    if swaps and is_shared(swaps, [finding.leans]) and is_shared(swaps, others):
        return replace(finding, verdict=Verdict("unknown", read=finding.verdict.read))
    return finding


def _count_missing(run: Run) -> int:
    return sum(not is_heard(run, upload) for upload in run.uploads)


def is_heard(run: Run, upload: Upload) -> bool:
    """Whether it was, or cannot be: processes died of it."""
    return incidents.has_failed(run.workspace, upload.client) or Finding.read(run.workspace, upload) is not None


def _start_workers(run: Run, missing: int) -> None:
    workspace, processes = run.workspace, min(torch.accelerator.device_count() or num_processors(), missing)

    def on_progress(remaining: int) -> None:
        workspace.log(Progress(stage=STAGE, completed=missing - remaining, total=missing, unit="clients"))

    with workspace.stage(STAGE), launch.running(workspace, [MODULE, str(workspace.root)], STAGE, processes) as workers:
        try:
            workers.wait(lambda: not _count_missing(run), partial(_count_missing, run), on_progress)
        except RuntimeError as error:
            workspace.log(Note(text=f"not every client could be judged: {error}"))
