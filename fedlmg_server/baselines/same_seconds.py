"""`prompts-only-same-seconds`: what the server could have learned from unguided images in the same time.

An unguided image takes a fraction of a guided one's seconds, so that equal numbers of images flatter guidance. Here the
student takes as many updates as every other, on as many unguided images as fit into the seconds of guided synthesis.
"""

from functools import partial

from common.config import Config
from fedlmg_server.baselines.outcome import Cost, DoesNotApply, Outcome, bytes_to_every_client
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.student import train_student
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.synthesis import launch, store
from fedlmg_server.trainer import TrainingSet

METHOD = "prompts-only"
"""The stage and the folder of unguided images."""


def prompts_only(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: the run generated no unguided images, whose seconds tell how many fit.
    """
    per_class = images_per_class(run)
    folder = run.workspace.root / "baselines" / f"{METHOD}-{per_class}-a-class"
    keys = {"images-per-class": per_class, "compare": False, "workspace": str(folder.resolve())}
    longer = run.sharing_uploads(Config.from_run_config(run.config.to_run_config() | keys))
    longer.uploads = run.uploads
    generate(longer)
    cost = Cost(rounds=1, server_seconds=longer.workspace.stage_seconds().get(METHOD, 0.0))
    synthetic = read_synthetic_set(longer, METHOD)
    with cost.timed("server"):
        model, _ = train_student(run, TrainingSet(synthetic.images, synthetic.labels))
    cost.num_images = len(synthetic.labels)
    cost.download_bytes = bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def images_per_class(run: VirtualRun) -> int:
    """For each client and class, as many unguided images as guided synthesis took seconds; never fewer than guided.

    Raises
    ------
    DoesNotApply: the run generated no unguided images.
    """
    seconds, images = run.workspace.stage_seconds(), run.workspace.stage_images()
    if not images[METHOD] or not images["synthesis"]:
        raise DoesNotApply("the run was made without it: give `fedlmg run --compare`")
    guided, unguided = (seconds[stage] / images[stage] for stage in ("synthesis", METHOD))
    planned = run.config.synthesis.images_per_class
    return max(planned, round(planned * guided / max(unguided, 1e-9)))


def generate(run: VirtualRun) -> None:
    """The unguided images that are missing in the run's workspace."""
    if store.is_complete(run, METHOD):
        return
    with (
        run.workspace.stage(METHOD),
        launch.start_workers(run.workspace, launch.num_processes(run), [METHOD]) as workers,
    ):
        workers.wait(METHOD, partial(store.is_complete, run, METHOD))
