"""What the server could have learned without guidance, or without any client, in the same seconds or updates.

`prompts-only-same-seconds`: an unguided image takes a fraction of a guided one's seconds, so that equal numbers of
images flatter guidance. Here the student takes as many updates as every other, on as many unguided images as fit into
the seconds of guided synthesis, in a warm-started run beside general images as the other students.

`general-multi-teacher`: no diffusion model. The clients' classifiers teach on general images alone, for as many updates
as every other student takes.

`general-same-seconds`: the general model of the student's architecture, trained for as many more seconds as synthesis
and distillation took. `general-same-updates`: for as many more updates as a student takes.
"""

import time

import torch

from common.config import Config
from common.models.predictor import Classifier
from fedlmg_server.baselines.outcome import Cost, DoesNotApply, Outcome, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import teachers
from fedlmg_server.distillation.mixture import load_general, mix
from fedlmg_server.distillation.student import build_classifier, train_student
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.general.images import GeneralImages, load_general_images
from fedlmg_server.general.models import find_general_model, make_job
from fedlmg_server.quarantine import ClientFault
from fedlmg_server.readers import Readers
from fedlmg_server.synthesis import incidents, launch, store
from fedlmg_server.synthesis.following import Following
from fedlmg_server.trainer import TrainingSet

METHOD = "prompts-only"
"""The stage and the folder of unguided images."""
NO_GENERAL_IMAGES = "the run has no general images to train on: set 'warm-start'"
PROBE = 20
"""Batches by which the speed of training is measured."""


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
    data, cost.num_images = TrainingSet(synthetic.images, synthetic.labels), len(synthetic.labels)
    if run.config.general.warm_start:
        images = load_general(run)
        data, cost.num_images = mix(data, images), cost.num_images + len(images)
    with cost.timed("server"):
        model, _ = train_student(run, data)
    cost.download_bytes = bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def general_multi_teacher(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: the run has no general images.
    """
    if not run.config.general.warm_start:
        raise DoesNotApply(NO_GENERAL_IMAGES)
    general, cost = load_general(run), cost_of_uploads(run)
    images, labels = general.images, general.labels
    with cost.timed("server"):
        votes = torch.stack([run.known_classes[upload.client][labels].float() for upload in run.uploads])
        readers, targets = Readers.of(run.uploads, run.class_names, votes), None
        if readers is None:
            weights = {upload.client: 1.0 for upload in run.uploads}
            targets = teachers.multi_teacher_in_parts(run, images, labels, weights, torch.float16)
        model, _ = train_student(run, TrainingSet(images, labels, targets, readers))
    cost.num_images = len(labels)
    cost.download_bytes += bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def general_same_seconds(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: the run has no general images, or took the server no time.
    """
    stages = run.workspace.stage_seconds()
    seconds = stages.get("synthesis", 0.0) + stages.get("distillation", 0.0)
    if not run.config.general.warm_start or not seconds:
        raise DoesNotApply(NO_GENERAL_IMAGES)
    images = load_general_images(run)
    return _train_longer(run, images, round(seconds / seconds_of_update(run, images)))


def general_same_updates(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: the run has no general images.
    """
    if not run.config.general.warm_start:
        raise DoesNotApply(NO_GENERAL_IMAGES)
    return _train_longer(run, load_general_images(run), run.num_updates)


def _train_longer(run: VirtualRun, images: GeneralImages, more: int) -> Outcome:
    """The general model of the student's architecture, trained for `more` updates beyond its own."""
    cost, architecture = Cost(), run.config.distillation.student_architecture
    known = find_general_model(run, architecture)
    num_updates = (known.num_updates if known else 0) or run.config.general.general_updates
    with cost.timed("server"):
        made = make_job(run, architecture, num_updates + more).run(images, may_go_on=False)
    cost.num_images = len(images.train)
    model = build_classifier(run, made.architecture, len(made.class_names))
    model.load_state_dict(made.weights)
    model.eval()
    cost.download_bytes = bytes_to_every_client(run, model)
    return Outcome(run.measure_classifier(Classifier(model, made.class_names, run.preprocess)), cost)


def seconds_of_update(run: VirtualRun, images: GeneralImages) -> float:
    """Seconds of one batch of a general model's training on this machine, without what a training takes besides."""
    seconds, architecture = [], run.config.distillation.student_architecture
    for num_updates in (PROBE, PROBE, 3 * PROBE):
        started = time.monotonic()
        make_job(run, architecture, num_updates).run(images, may_go_on=False)
        seconds.append(time.monotonic() - started)
    # The first one also warms the machine up.
    return max((seconds[2] - seconds[1]) / (2 * PROBE), 1e-4)


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
    """The unguided images that are missing in the run's workspace.

    Raises
    ------
    DoesNotApply: a client's classifier cannot read them.
    """
    if store.is_complete(run, METHOD):
        return
    incidents.clear(run.workspace)
    following = Following(run, METHOD)
    with (
        run.workspace.stage(METHOD),
        launch.start_workers(run.workspace, launch.num_processes(run), [METHOD]) as workers,
    ):
        workers.wait(following.is_complete, following.count, lambda count: None)
    if failed := incidents.read_failures(run.workspace):
        raise DoesNotApply(str(ClientFault(failed)))
