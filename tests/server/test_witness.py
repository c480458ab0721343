"""The witness: a client whose labels contradict what the server knows is found, and an honest one is not accused."""

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

from common.config import Config, ConfigError
from common.datasets.labeled_images import LabeledImages
from common.manifest import StudentCopy
from common.storage.atomic import write_json
from common.upload import Upload, to_wire, weights_digest
from fedlmg_server import trainer
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.pretraining import tiny_pipeline, train
from fedlmg_server.events import Note
from fedlmg_server.quarantine import read_rejections
from fedlmg_server.run import Run
from fedlmg_server.synthesis import launch
from fedlmg_server.trainer import TrainingSet
from fedlmg_server.witness import hearing, judge, worker
from fedlmg_server.witness.hearing import hear_clients
from fedlmg_server.witness.judge import hear, load_held_out
from fedlmg_server.workspace import Workspace
from tests.manifests import saying
from tests.server.tiny_federation import keep_general, trained, two_colors

NAMES = ["bright", "dark"]


@cache
def make_general() -> Upload:
    """A model that reads bright as class 0, as the run's order has it."""
    upload = trained("general")
    flipped = {name: each.flip(0) if name.startswith("head.") else each for name, each in upload.arrays.items()}
    return saying(replace(upload, arrays=flipped), class_names=NAMES)


def fine_tuned(client: str, labels: torch.Tensor) -> Upload:
    """A client that starts from the general model and trains on bright and dark images with these labels."""
    general, data = make_general(), two_colors()
    model = general.classifier().requires_grad_(True)
    settings = Config.from_run_config({"student-batch-size": 16, "student-learning-rate": 0.05}).distillation
    trainer.train(model, TrainingSet(data.images, labels), general.preprocess, settings, 0, 16)
    arrays = {name: value.detach().clone() for name, value in model.state_dict().items()}
    start = weights_digest({name: to_wire(each) for name, each in general.arrays.items()})
    return saying(replace(general, arrays=arrays), client=client, start=start, sha256=weights_digest(arrays))


def write_public_images(folder: Path) -> None:
    data: LabeledImages = two_colors(80)
    for number, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        path = folder / ("bright" if label else "dark") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model, public images, and uploads: three honest clients, and one that mixed up its folders."""
    folder = tmp_path_factory.mktemp("witness")
    train.save(tiny_pipeline.build_pipeline(channels=(16, 32)), folder / "pipeline")
    write_public_images(folder / "public")
    honest = 1 - two_colors().labels
    for client, labels in (("a", honest), ("b", honest), ("c", honest), ("mixed-up", 1 - honest)):
        fine_tuned(client, labels).save(folder / "uploads" / client)
    return folder


def make_run(made: Path, folder: Path) -> Run:
    config = Config.from_run_config(
        {
            "workspace": str(folder / "workspace"),
            "dataset": "",
            "public-images": str(made / "public"),
            "diffusion-model": str(made / "pipeline"),
            "num-inference-steps": 2,
        }
    )
    run = Run(config, Workspace.open(config, versions={}), torch.device("cpu"))
    keep_general(run, make_general(), NAMES)
    shutil.copytree(made / "uploads", run.workspace.uploads, dirs_exist_ok=True)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """Nobody was heard yet."""
    return make_run(made, tmp_path)


@pytest.fixture(scope="module")
def findings(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the witness writes down of every client."""
    run = make_run(made, tmp_path_factory.mktemp("heard"))
    worker.work(run, 0, 1)
    return run.workspace.finding("a").parent


@pytest.fixture
def heard(run: Run, findings: Path) -> Run:
    """Every client was heard, and nobody was left out yet."""
    shutil.copytree(findings, run.workspace.finding("a").parent, dirs_exist_ok=True)
    return run


@contextmanager
def in_this_process(workspace: Workspace, command: Sequence[str], *_: object) -> Iterator[SimpleNamespace]:
    """What the process of this command does, without the seconds that its start takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*command])
        importlib.import_module(command[0]).main()
    yield SimpleNamespace(wait=lambda *_: None)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(in_this_process, id="in this process"),
        pytest.param(launch.running, id="in others", marks=pytest.mark.slow),
    ],
)
def test_the_run_goes_on_without_a_mislabelled_client_and_says_what_to_check(
    run: Run, start: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(launch, "running", start)

    hear_clients(run)

    assert [upload.client for upload in run.uploads] == ["a", "b", "c"]
    (reason,) = read_rejections(run.workspace).values()
    assert "client 'mixed-up': mislabelled" in reason
    assert "its 'bright' looks like 'dark', its 'dark' looks like 'bright'" in reason
    assert "check whether class folders are mixed up" in reason
    assert {verdict.state for verdict in hearing.verdicts(run).values()} == {"consistent"}


def test_an_operator_who_wants_to_be_told_alone_keeps_the_client(heard: Run):
    heard.config = Config.from_run_config(heard.config.to_run_config() | {"witness": "tell"})

    hear_clients(heard)

    assert len(heard.uploads) == 4
    (note,) = (event for event in heard.workspace.read_events() if isinstance(event, Note))
    assert "client 'mixed-up' may be mislabelled" in note.text


def test_where_general_images_are_drawn_a_client_is_told_of_alone(heard: Run):
    """The diffusion model may mix two classes up, and then every honest client seems to."""
    write_json(heard.workspace.general / "images.json", {"source": "unguided", "num_images": 8})

    hear_clients(heard)

    assert len(heard.uploads) == 4
    notes = [event.text for event in heard.workspace.read_events() if isinstance(event, Note)]
    assert any("'mixed-up' may be mislabelled" in text and "it drew the general images" in text for text in notes)


def test_where_most_clients_seem_mislabelled_the_server_doubts_itself(heard: Run):
    for client in ("b", "c"):
        fine_tuned(client, two_colors().labels).save(heard.workspace.upload(client))
    heard.reread_uploads()
    worker.work(heard, 0, 1)

    hear_clients(heard)

    assert len(heard.uploads) == 4
    assert any(
        "check this server's general images" in e.text for e in heard.workspace.read_events() if isinstance(e, Note)
    )


def test_too_few_clients_left_end_the_run_with_the_reason(heard: Run):
    heard.config = Config.from_run_config(heard.config.to_run_config() | {"min-clients": 4})

    with pytest.raises(ConfigError, match=r"'min-clients' is 4 .*'mixed-up': mislabelled"):
        hear_clients(heard)


def test_a_client_is_heard_once_and_anew_after_another_upload(heard: Run):
    first = hearing.findings(heard)["mixed-up"]
    fine_tuned("mixed-up", 1 - two_colors().labels).save(heard.workspace.upload("mixed-up"))
    heard.reread_uploads()

    assert first.verdict.state == "mislabelled"
    assert "mixed-up" not in hearing.findings(heard)


def test_a_client_without_a_start_is_shown_images_in_its_look(run: Run):
    upload = saying(fine_tuned("a", 1 - two_colors().labels), start="")
    backend = opening.load_backend(run.config.synthesis, run.device)

    finding = hear(run, backend, upload, load_held_out(run))

    assert finding.reads_general is None
    assert finding.reads_styled is not None


@pytest.mark.parametrize(
    ("mixes_up", "draws_the_other", "state"),
    [(False, True, "unknown"), (True, False, "mislabelled")],
    ids=["honest, whose look is drawn wrongly", "mixed up"],
)
def test_general_images_confirm_what_images_in_a_client_s_look_accuse_it_of(
    run: Run, monkeypatch: pytest.MonkeyPatch, mixes_up: bool, draws_the_other: bool, state: str
):
    shown = two_colors()
    honest = 1 - shown.labels
    upload = saying(fine_tuned("a", 1 - honest if mixes_up else honest), start="")
    drawn = shown.images, 1 - honest if draws_the_other else honest
    monkeypatch.setattr(judge, "draw_styled", lambda *_: drawn)

    finding = hear(run, opening.load_backend(run.config.synthesis, run.device), upload, load_held_out(run))

    assert finding.verdict.state == state


def with_copy(upload: Upload, copied: Upload, **changes: object) -> Upload:
    """The upload with a copy of the student that has the weights of another one."""
    said = StudentCopy(
        architecture="small_resnet",
        class_names=NAMES,
        sha256="",
        start=copied.manifest.start,
        validation_accuracy=1.0,
    )
    return saying(upload.with_student_copy(copied.arrays, said), **changes)


def test_an_honest_copy_does_not_spare_the_classifier_beside_it_whatever_its_start_is_called(run: Run):
    honest, mixed_up = (fine_tuned("a", labels) for labels in (1 - two_colors().labels, two_colors().labels))
    backend = opening.load_backend(run.config.synthesis, run.device)

    finding = hear(run, backend, with_copy(mixed_up, honest, start="any"), load_held_out(run))

    assert finding.reads_general is not None
    assert finding.reads_styled is not None


def test_a_copy_that_lacks_a_class_of_the_client_is_not_compared_with_the_general_model(run: Run):
    honest = fine_tuned("a", 1 - two_colors().labels)
    strange = with_copy(honest, honest, class_names=["bright", "strange"], start="")
    backend = opening.load_backend(run.config.synthesis, run.device)

    finding = hear(run, backend, strange, load_held_out(run))

    assert finding.reads_general is None
