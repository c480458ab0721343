"""Teachers that read every view of an image: who says what, and that a student learns from it."""

from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import psutil
import pytest
import torch

from common.config.run import DistillationConfig
from common.datasets.labeled_images import LabeledImages, LabeledView
from common.upload import Upload, weights_digest
from common.vision.metrics import accuracy, predict
from fedlmg_server import readers, trainer
from fedlmg_server.distillation import mixture
from fedlmg_server.distillation.aggregate import TeacherCache
from fedlmg_server.distillation.job import config_of
from fedlmg_server.distillation.synthetic_set import SyntheticSet
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.readers import Reader, Readers
from fedlmg_server.run import Run
from fedlmg_server.trainer import TrainingSet
from tests.conftest import make_upload
from tests.server.tiny_federation import trained, two_colors, warm_run

CPU = torch.device("cpu")
NAMES = ["a", "b", "c"]
VIEWS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def sure_of(client: str, class_names: list[str], row: int) -> Upload:
    """A classifier that calls every image by one of its classes."""
    upload = make_upload(client, class_names)
    bias = 9.0 * torch.eye(len(class_names))[row]
    arrays = upload.arrays | {"head.weight": upload.arrays["head.weight"] * 0, "head.bias": bias}
    manifest = upload.manifest.model_copy(update={"sha256": weights_digest(arrays)})
    return replace(upload, arrays=arrays, manifest=manifest)


def opened(uploads: list[Upload], votes: torch.Tensor) -> Reader:
    readers = Readers.of(uploads, NAMES, votes)
    assert readers is not None
    return readers.open(CPU)


def test_each_view_gets_the_answer_of_who_may_speak_of_it():
    votes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    read = opened([sure_of("x", NAMES, 0), sure_of("y", ["c", "b"], 0)], votes)

    said = read(VIEWS, torch.tensor([1, 0, 2]))

    assert said[:2].argmax(1).tolist() == [2, 0]
    assert said.sum(1).tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_a_mean_counts_by_votes_and_each_class_by_those_that_know_it():
    read = opened([sure_of("x", NAMES, 0), sure_of("y", ["b", "c"], 0)], torch.tensor([[1.0], [3.0]]))

    (said,) = read(VIEWS[:1], torch.tensor([0])).tolist()

    assert said == pytest.approx([1 / (1 + 3 / 4), 3 / 4 / (1 + 3 / 4), 0.0], abs=1e-3)


def test_a_classifier_that_fails_on_a_view_says_nothing_of_it():
    broken = sure_of("x", NAMES, 0)
    broken.arrays["head.bias"][1] = torch.nan
    read = opened([broken, sure_of("y", NAMES, 2)], torch.ones(2, 1))

    assert read(VIEWS[:1], torch.tensor([0])).argmax(1).tolist() == [2]


def test_a_student_learns_what_a_reader_says_alone():
    teacher, data = trained("a"), two_colors()
    taught = Readers.of([teacher], teacher.class_names, torch.ones(1, len(data.labels)))
    model = make_upload("student", teacher.class_names, seed=1).classifier().requires_grad_(True)

    trainer.train(model, TrainingSet(data.images, None, readers=taught), teacher.preprocess, CONFIG, 0, 24)

    assert accuracy(predict(model, teacher.preprocess, data.images), data.labels) > 0.9


CONFIG = DistillationConfig(student_batch_size=16, student_learning_rate=0.05)


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Two clients, and four general images."""
    data = two_colors(4)
    general = LabeledImages(data.images, 1 - data.labels)
    found = GeneralImages(LabeledView.of(general), LabeledView.of(general), "public")
    monkeypatch.setattr(mixture, "load_general_images", lambda run: found)
    uploads = [trained("a"), trained("b")]
    return warm_run(uploads, tmp_path, uploads[0])


def guided(run: Run) -> SyntheticSet:
    data = two_colors(4)
    return SyntheticSet(data.images, 1 - data.labels, ["a", "a", "b", "b"], run.class_names)


def test_with_a_warm_start_the_client_that_guided_an_image_reads_its_views(warm: Run):
    data = TeacherCache(warm, guided(warm)).training_set("specific-teacher", {"a": 1.0, "b": 1.0})

    assert data.teacher is None
    assert data.readers is not None
    assert data.readers.votes.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]


def test_with_a_warm_start_all_clients_read_views_of_guided_and_of_general_images(warm: Run):
    data = TeacherCache(warm, guided(warm)).training_set("multi-teacher", {"a": 1.0, "b": 0.5})

    assert data.readers is not None
    assert data.readers.votes.tolist() == [[1.0] * 8, [0.5] * 8]


def test_general_images_have_labels_in_the_classes_of_the_run(warm: Run):
    labels = mixture.load_general(warm).labels
    warm.class_names = warm.class_names[::-1]

    other_order = mixture.load_general(warm).labels

    assert (labels + other_order).tolist() == [1] * 4


@pytest.mark.parametrize("limit", ["MOST_READERS", "MOST_BYTES"])
def test_too_many_or_too_large_classifiers_read_every_image_once(
    warm: Run, monkeypatch: pytest.MonkeyPatch, limit: str
):
    monkeypatch.setattr(readers, limit, 1)

    data = TeacherCache(warm, guided(warm)).training_set("specific-teacher", {"a": 1.0, "b": 1.0})

    assert data.readers is None
    assert data.teacher is not None


def test_only_clients_that_say_something_are_held(warm: Run):
    data = TeacherCache(warm, guided(warm)).training_set("specific-teacher", {"a": 0.0, "b": 1.0})

    assert data.readers is not None
    assert len(data.readers.teachers) == 1
    assert data.readers.votes.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


def test_a_classifier_is_sent_to_a_process_as_one_file_in_shared_memory(warm: Run):
    data = TeacherCache(warm, guided(warm)).training_set("multi-teacher", {"a": 1.0, "b": 1.0})
    before = psutil.Process().num_fds()

    sent = ForkingPickler.dumps(data.readers)

    assert psutil.Process().num_fds() - before <= 2 * len(warm.uploads) + 4
    assert len(sent) < 1000 * len(warm.uploads)


def test_opening_readers_leaves_random_numbers_alone(warm: Run):
    data = TeacherCache(warm, guided(warm)).training_set("multi-teacher", {"a": 1.0, "b": 1.0})
    before = torch.get_rng_state()

    assert data.readers is not None
    data.readers.open(CPU)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_student_that_starts_from_a_general_model_takes_a_fifth_of_the_learning_rate(warm: Run):
    from_scratch = replace(warm.config, general=replace(warm.config.general, warm_start=False))
    other = Run(from_scratch, warm.workspace, CPU)
    other.uploads, other.class_names = warm.uploads, warm.class_names

    rates = [config_of(run).distillation.student_learning_rate for run in (warm, other)]

    assert rates == pytest.approx([0.01, 0.05])
