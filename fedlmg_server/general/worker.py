"""One process that generates unguided general images, one of `WORLD_SIZE`; `unguided.py` starts it."""

from pathlib import Path

from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.texts import Texts
from fedlmg_server.general.unguided import Plan
from fedlmg_server.run import Run
from fedlmg_server.synthesis.member import Member, make_parser


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of the images, which names their classes")
    member = Member.of_this_process(parser)
    run = Run.reopen(member.arguments.workspace, member.device)
    plan = Plan.of_folder(run, member.arguments.folder)
    texts = Texts(run.workspace.prompts, plan.class_names)
    plan.work(opening.load_backend(run.config.synthesis, member.device, texts), member.rank, member.world_size)


if __name__ == "__main__":
    main()
