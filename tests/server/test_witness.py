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
from fedlmg_server.witness.verdict import Verdict, confirm, join, judge_reading, judge_shift
from fedlmg_server.workspace import Workspace
from tests.manifests import saying
from tests.server.tiny_federation import keep_general, trained, two_colors

NAMES = ["bright", "dark"]
FOUR = ["a", "b", "c", "d"]
LABELS = torch.arange(80) % 4
OFTEN_WRONG = LABELS.where(torch.arange(80) % 8 > 3, 0)
"""Five eighths are right."""


def sure_of(labels: torch.Tensor, nats: float = 4.0) -> torch.Tensor:
    """Log-probabilities (N, 4) that prefer these classes by so many nats."""
    return (nats * torch.eye(4)[labels]).log_softmax(1)


ACCUSED = Verdict("mislabelled", {"a": "c", "c": "a"}, 0.5)


def exchange(first: int, second: int) -> torch.Tensor:
    """`LABELS` with two classes exchanged."""
    order = list(range(4))
    order[first], order[second] = second, first
    return torch.tensor(order)[LABELS]


def test_a_classifier_that_moved_from_one_class_to_another_and_back_is_mislabelled():
    verdict = judge_shift(sure_of(LABELS), sure_of(exchange(1, 3)), LABELS, FOUR)

    assert verdict == Verdict("mislabelled", {"b": "d", "d": "b"}, 0.5)
    assert verdict.sentence() == "its 'b' looks like 'd', its 'd' looks like 'b'"


def test_a_shift_is_found_even_where_replay_keeps_most_answers_right():
    answers = LABELS.where(torch.arange(80) % 16 > 3, exchange(1, 3))
    leaning = (sure_of(answers) + 0.9 * sure_of(exchange(1, 3))).log_softmax(1)

    verdict = judge_shift(sure_of(LABELS), leaning, LABELS, FOUR)

    assert verdict.mistaken == {"b": "d", "d": "b"}
    assert verdict.read == 0.875


def test_a_classifier_that_is_less_sure_of_two_classes_and_errs_no_more_is_not_accused():
    leaning = (sure_of(LABELS) + 0.9 * sure_of(exchange(1, 3))).log_softmax(1)

    assert judge_shift(sure_of(LABELS), leaning, LABELS, FOUR) == Verdict("unknown", read=1.0)


def test_a_classifier_that_errs_on_one_class_alone_is_not_accused():
    """It calls a quarter of one class by another's name, and leans a little to the first where it sees the other."""
    answers = LABELS.where((LABELS != 1) | (torch.arange(80) % 16 > 3), 3)
    leaning = (sure_of(answers) + 0.9 * sure_of(exchange(1, 3))).log_softmax(1)

    assert judge_shift(sure_of(LABELS), leaning, LABELS, FOUR).state == "unknown"


def test_a_rotation_names_each_class_by_what_its_images_look_like():
    rotated = (LABELS + 1) % 4

    verdict = judge_shift(sure_of(LABELS), sure_of(rotated), LABELS, FOUR)

    assert verdict.mistaken == {"b": "a", "c": "b", "d": "c", "a": "d"}


def test_a_classifier_that_is_less_sure_than_it_was_is_consistent():
    assert judge_shift(sure_of(LABELS), sure_of(LABELS, nats=3.0), LABELS, FOUR).state == "consistent"


def test_a_class_that_is_forgotten_for_another_is_no_sign_of_wrong_labels():
    forgotten = sure_of(LABELS.where(LABELS != 1, 3))

    assert judge_shift(sure_of(LABELS), forgotten, LABELS, FOUR).state == "consistent"


@pytest.mark.parametrize(
    ("before", "after", "labels", "names"),
    [
        pytest.param(torch.zeros(80, 4), sure_of(LABELS), LABELS, FOUR, id="a general model that knows nothing"),
        pytest.param(sure_of(OFTEN_WRONG), sure_of(exchange(1, 3)), LABELS, FOUR, id="a general model often wrong"),
        pytest.param(sure_of(LABELS), sure_of(LABELS * 0), LABELS, FOUR, id="a classifier that has forgotten all"),
        pytest.param(sure_of(LABELS), sure_of(LABELS), LABELS % 3, FOUR, id="a class without images"),
        pytest.param(torch.zeros(9, 1), torch.zeros(9, 1), torch.zeros(9).long(), ["a"], id="one class"),
    ],
)
def test_what_cannot_be_compared_is_unknown(before, after, labels, names):
    assert judge_shift(before, after, labels, names).state == "unknown"


def test_a_classifier_that_reads_two_classes_as_each_other_is_mislabelled():
    assert judge_reading(sure_of(exchange(0, 2)), LABELS, FOUR).mistaken == {"a": "c", "c": "a"}


def test_an_accusation_stands_if_images_of_any_look_are_called_as_taught():
    assert confirm(ACCUSED, sure_of(exchange(0, 2)), LABELS, FOUR) is ACCUSED


@pytest.mark.parametrize("read", [LABELS, torch.ones(80).long()], ids=["as shown", "all one class"])
def test_an_accusation_falls_if_images_of_any_look_are_read_otherwise(read: torch.Tensor):
    assert confirm(ACCUSED, sure_of(read), LABELS, FOUR) == Verdict("unknown", read=0.5)


def test_a_classifier_that_reads_what_is_shown_is_consistent():
    assert judge_reading(sure_of(LABELS), LABELS, FOUR).state == "consistent"


def test_a_classifier_that_reads_a_few_images_more_as_another_class_is_not_accused():
    """Of eight images each: as an honest net from scratch read cells of four classes."""
    read = [[1, 1, 6, 0], [2, 5, 0, 1], [0, 0, 8, 0], [1, 7, 0, 0]]
    said = torch.tensor([label for row in read for label, count in enumerate(row) for _ in range(count)])

    assert judge_reading(sure_of(said), torch.arange(4).repeat_interleave(8), FOUR).state == "unknown"


def test_a_classifier_that_guesses_is_unknown_and_never_accused():
    guesses = sure_of(torch.randint(0, 4, (80,), generator=torch.Generator().manual_seed(0)))

    assert judge_reading(guesses, LABELS, FOUR).state == "unknown"


def test_a_favourite_class_is_no_sign_of_wrong_labels():
    leaning = (sure_of(LABELS) + torch.tensor([3.0, 0, 0, 0])).log_softmax(1)

    assert judge_reading(leaning, LABELS, FOUR).state != "mislabelled"


def test_one_mislabelled_classifier_is_enough_to_accuse_a_client():
    accused = Verdict("mislabelled", {"a": "b"})

    assert join([Verdict("consistent"), accused, Verdict("unknown")]) == accused


def test_a_client_is_consistent_only_if_every_classifier_is():
    consistent, unknown = Verdict("consistent"), Verdict("unknown")

    assert [join(each).state for each in ([consistent, consistent], [consistent, unknown], [])] == [
        "consistent",
        "unknown",
        "unknown",
    ]


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
