"""One process of the witness, one of `WORLD_SIZE`; `hearing.py` starts it."""

from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.texts import Texts
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents
from fedlmg_server.synthesis.member import Member, make_parser
from fedlmg_server.witness.hearing import is_heard
from fedlmg_server.witness.judge import SILENT, hear, load_held_out


def work(run: Run, rank: int, world_size: int) -> None:
    """Judge every `world_size`-th client that was not judged yet, from number `rank`."""
    mine = [upload for number, upload in enumerate(run.uploads) if number % world_size == rank]
    if not (mine := [upload for upload in mine if not is_heard(run, upload)]):
        return
    texts = Texts(run.workspace.prompts, {name for upload in mine for name in upload.class_names})
    backend, held_out = opening.load_backend(run.config.synthesis, run.device, texts), load_held_out(run)
    for upload in mine:
        try:
            with incidents.drawing(run.workspace, upload.client, 0):
                finding = hear(run, backend, upload, held_out)
        except Exception as error:  # A client's classifier may raise anything.
            print(f"{upload.client}: cannot be judged: {error!r}", flush=True)
            finding = SILENT
        finding.write(run.workspace, upload)


def main() -> None:
    member = Member.of_this_process(make_parser(__doc__))
    work(Run.reopen(member.arguments.workspace, member.device), member.rank, member.world_size)


if __name__ == "__main__":
    main()
