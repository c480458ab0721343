"""One process of synthesis: what is missing of every `WORLD_SIZE`-th batch of the plan, from number `RANK`.

The ServerApp starts one for each GPU, or one of one thread for each processor core. By hand, on one machine or on
several that share the workspace:

    accelerate launch --num_processes 4 -m fedlmg_server.synthesis.worker WORKSPACE     # on GPUs
    torchrun --nproc-per-node 4 -m fedlmg_server.synthesis.worker WORKSPACE             # on processor cores

Processes never talk to each other; images are named by seed, so what one leaves undone another generates.
"""

import os
import sys
import time
import traceback

from common import manifest
from common.upload import is_whole
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.diffusion.texts import Texts
from fedlmg_server.events import Estimated
from fedlmg_server.quarantine import ClientFault
from fedlmg_server.run import Run
from fedlmg_server.synthesis import estimate, incidents, plan, store
from fedlmg_server.synthesis.generate import generate_for_client
from fedlmg_server.synthesis.member import Member, make_parser
from fedlmg_server.workspace import METHODS

LONGEST_PROBE_SECONDS = 300.0
"""How long a process waits for the first one's probe."""
POLL_SECONDS = 0.2


def work(run: Run, methods: list[str], rank: int, world_size: int) -> None:
    """Generate this process's share, method by method; one classifier in memory at a time. The first process says
    by a short probe how long it will take, and the others wait for that. Clients whose images cannot be drawn are
    passed over.

    Raises
    ------
    ClientFault: what is missing of a client cannot be drawn; the others' images are not complete.
    """
    folders, left_out = filter(is_whole, run.workspace.uploads.glob("*")), run.workspace.class_notes.left_out
    held = {folder.name: manifest.read(folder).held_class_names for folder in folders}
    asked = {name for folder, names in held.items() for name in names if name not in left_out.get(folder, {})}
    texts = Texts(run.workspace.prompts, asked)
    backend, config = opening.load_backend(run.config.synthesis, run.device, texts), run.config.synthesis
    if "fedlmg" in methods and not store.count_images(run.workspace):
        if rank == 0:
            _tell_cost(backend, run, world_size)
        else:
            _wait_for_cost(run)
    for method in methods:
        dealt = 0
        for upload in run.load_uploads():
            # The next client's first batch is the next process's, so that none gets the odd batch of every client.
            share = ((rank - dealt) % world_size, world_size)
            if not incidents.has_failed(run.workspace, upload.client):
                generate_for_client(backend, run, upload, method, share)
            dealt += plan.num_batches(upload.held_class_names, config)


def _tell_cost(backend: DiffusionBackend, run: Run, world_size: int) -> None:
    uploads = (upload for upload in run.load_uploads() if not incidents.has_failed(run.workspace, upload.client))
    if (first := next(uploads, None)) is not None:
        with incidents.drawing(run.workspace, first.client, 0):
            cost = estimate.time_probe(backend, run, first, estimate.count_planned_images(run), world_size)
        run.workspace.log(Estimated(sentence=cost.sentence()))


def _wait_for_cost(run: Run) -> None:
    """Until the operator can read what the run costs; a first process that is started by hand may never come."""
    latest, clients = time.monotonic() + LONGEST_PROBE_SECONDS, [upload.client for upload in run.load_uploads()]
    while time.monotonic() < latest and not store.count_images(run.workspace):
        is_told = any(isinstance(event, Estimated) for event in run.workspace.read_events())
        if is_told or all(incidents.has_failed(run.workspace, client) for client in clients):
            return
        time.sleep(POLL_SECONDS)


def work_on(run: Run, methods: list[str], rank: int, world_size: int) -> None:
    """As `work`, in a new process after each client that fails: what a net raised may have broken this one, as an
    assertion on a GPU does."""
    try:
        work(run, methods, rank, world_size)
    except ClientFault as fault:
        traceback.print_exc()
        for client, reason in fault.reasons.items():
            incidents.note_failure(run.workspace, client, reason)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--methods", nargs="+", default=["fedlmg"], choices=METHODS, help="what to generate, in turn")
    member = Member.of_this_process(parser)
    run = Run.reopen(member.arguments.workspace, member.device)
    work_on(run, member.arguments.methods, member.rank, member.world_size)


if __name__ == "__main__":
    main()
