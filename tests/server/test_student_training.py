"""The student is trained, saved, and trained side by side with others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch

from common.config.run import ConfigError, DistillationConfig
from common.models import architectures
from common.storage.images import ImageFile, ImageView
from common.storage.tensors import save_training
from common.vision.metrics import accuracy, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server import readers, trainer
from fedlmg_server.distillation import parallel, saved_model, student
from fedlmg_server.distillation.aggregate import Distilled
from fedlmg_server.distillation.job import Job
from fedlmg_server.distillation.parallel import train_students
from fedlmg_server.distillation.saved_model import is_model_saved, save_model
from fedlmg_server.distillation.student import make_student, train_student
from fedlmg_server.readers import Readers
from fedlmg_server.trainer import TrainingSet
from tests.conftest import make_upload
from tests.server.tiny_distillation import CONFIG, make_run

ONE_EPOCH = replace(CONFIG, student_epochs=1)


def two_colors(count: int = 64) -> TrainingSet:
    """Dark images of class 0, bright ones of class 1."""
    targets = torch.arange(count) % 2
    images = (
        torch.randint(0, 100, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        + 150 * targets[:, None, None, None]
    )
    return TrainingSet(images.to(torch.uint8), targets)


def test_student_learns_end_to_end():
    data, run = two_colors(), make_run()
    model = make_student(run)
    stem = next(model.parameters()).clone()

    trainer.train(model, data, run.preprocess, CONFIG, seed=0, num_updates=24)

    assert accuracy(predict(model, run.preprocess, data.images), data.labels) == 1.0
    assert not torch.equal(next(model.parameters()), stem)


def test_model_that_has_learned_no_numbers_is_not_saved(tmp_path: Path):
    run = make_run(CONFIG, [make_upload("a", ["dark", "bright"])], tmp_path)
    model = make_student(run)
    next(model.parameters()).data.fill_(torch.nan)

    with pytest.raises(ValueError, match="the model's weights are no numbers"):
        save_model(run, Distilled(model, [], {}, {}))

    assert not (tmp_path / "model").exists()


def test_a_model_that_is_half_written_over_another_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uploads = [make_upload("a", ["dark", "bright"]), make_upload("late", ["bright", "red"])]
    run = make_run(CONFIG, uploads[:1], tmp_path)
    save_model(run, Distilled(make_student(run), [], {}, {}))
    run = make_run(CONFIG, uploads, tmp_path)
    real = saved_model.write_json

    def cut_off(path: Path, content: object) -> None:
        if path.name == "model.json":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(saved_model, "write_json", cut_off)

    with pytest.raises(KeyboardInterrupt):
        save_model(run, Distilled(make_student(run), [], {}, {}))

    assert not is_model_saved(run)


def test_same_seed_gives_the_same_student():
    def weights() -> torch.Tensor:
        run = make_run()
        model = make_student(run)
        trainer.train(model, two_colors(), run.preprocess, CONFIG, 5, num_updates=3)
        return model.head.weight

    torch.manual_seed(0)
    first = weights()
    torch.manual_seed(0)

    assert torch.equal(weights(), first)


class Seen(torch.nn.Module):
    """A net that keeps the brightness of each image that it was shown."""

    def __init__(self):
        super().__init__()
        self.head, self.brightness = torch.nn.Linear(1, 2), []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.brightness.append(inputs.mean((1, 2, 3)))
        return self.head(self.brightness[-1][:, None])


@pytest.mark.parametrize("balanced", [False, True])
def test_classes_are_drawn_alike_where_it_is_asked_for(balanced: bool):
    labels = (torch.arange(160) < 8).long()
    data = TrainingSet(torch.full((160, 3, 8, 8), 255, dtype=torch.uint8) * labels[:, None, None, None], labels)
    net, run = Seen(), make_run()

    trainer.train(net, data, run.preprocess, CONFIG, 0, num_updates=10, looks="none", balanced=balanced)

    bright = (torch.cat(net.brightness) > 0).double().mean().item()
    assert bright == pytest.approx(0.5 if balanced else 0.05, abs=0.12 if balanced else 1e-9)


def test_average_initialisation_is_the_mean_of_like_uploads():
    uploads = [make_upload("a", ["0", "1"], seed=1), make_upload("b", ["0", "1"], seed=2)]
    config = DistillationConfig(student_initialisation="average")

    model = make_student(make_run(config, uploads))

    mean = (uploads[0].arrays["head.weight"] + uploads[1].arrays["head.weight"]) / 2
    torch.testing.assert_close(model.head.weight.detach(), mean)


def test_average_of_unlike_uploads_is_refused():
    run = make_run(DistillationConfig(student_initialisation="average"), [make_upload("a", ["0"], "small_convnext")])

    with pytest.raises(ConfigError, match="no client uploaded a 'small_resnet'"):
        make_student(run)


def test_training_that_was_killed_goes_on_to_the_same_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    run = make_run(replace(ONE_EPOCH, student_epochs=8), [make_upload("a", ["0", "1"])])
    file, told = tmp_path / "student.safetensors", []

    def die_in_the_third_epoch(entry: dict) -> None:
        told.append(entry)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student.train_student(run, two_colors(), die_in_the_third_epoch, file)
    resumed, history = student.train_student(run, two_colors(), told.append, file)

    whole, whole_history = student.train_student(run, two_colors())
    assert [entry["epoch"] for entry in told] == [1, 2, 3, *range(3, len(whole_history) + 1)]
    assert history == whole_history
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert not file.exists()


def test_training_does_not_go_on_from_that_of_other_settings(tmp_path: Path):
    path, run = tmp_path / "student.safetensors", make_run(ONE_EPOCH, [make_upload("a", ["0", "1"])])
    save_training(path, make_student(run), trainer.make_optimizer(make_student(run), 0.1), {"key": "of another"})

    _, history = student.train_student(run, two_colors(), file=path)

    assert history == student.train_student(run, two_colors())[1]


def test_student_of_images_in_a_file_is_that_of_images_in_memory(tmp_path: Path):
    run, data = make_run(ONE_EPOCH, [make_upload("a", ["0", "1"])]), two_colors()
    (tmp_path / "images").write_bytes(data.images.numpy().tobytes())
    in_file = TrainingSet(ImageFile(tmp_path / "images", data.images.shape), data.labels)

    trained = [train_student(run, each)[0].head.weight for each in (data, in_file)]

    assert torch.equal(*trained)


def test_jobs_of_many_clients_and_images_are_small():
    uploads = [make_upload(str(number), ["0", "1"]) for number in range(8)]
    run, images = make_run(CONFIG, uploads), ImageView.of(torch.zeros(4000, 3, 32, 32, dtype=torch.uint8))
    data = TrainingSet(images.choose(torch.arange(4000)), torch.zeros(4000, dtype=torch.int64))

    job = ForkingPickler.dumps((Job.of(run, make_student(run)).train, data))

    assert len(job) < 1.5 * sum(each.numel() * 4 for each in make_student(run).state_dict().values())


def test_nothing_to_train_is_no_error():
    assert not list(train_students(make_run(), {}))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as a process has that trains beside others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["threads", pytest.param("processes", marks=pytest.mark.slow)])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes take 10 seconds to start; a pool of one thread shows who gets which student as well."""
    if request.param == "threads":
        monkeypatch.setattr(
            parallel, "ProcessPoolExecutor", lambda workers, context, **start: ThreadPoolExecutor(1, **start)
        )


@pytest.mark.usefixtures("one_thread", "pool")
def test_students_trained_side_by_side_are_those_trained_alone():
    run = make_run(DistillationConfig(student_epochs=1, student_batch_size=16), [make_upload("a", ["0", "1"])])
    taught = Readers.of([make_upload("a", ["dark", "bright"])], ["dark", "bright"], torch.ones(1, 32))
    jobs = {"one": two_colors(), "other": replace(two_colors(32), readers=taught)}

    together = dict(train_students(run, jobs))

    assert together.keys() == jobs.keys()
    for name, data in jobs.items():
        alone, _ = train_student(run, data)
        torch.testing.assert_close(together[name][0]["head.weight"], alone.head.weight.detach())


def test_a_student_of_large_images_reads_them_in_the_precision_of_the_processor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    seen: list[torch.dtype] = []
    model = architectures.build("resnet18", 2, 72)
    model.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    trainer.train(model, two_colors(4), PreprocessSpec(72), CONFIG, seed=0, num_updates=1)

    assert seen == [torch.bfloat16]
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_a_teacher_is_read_in_a_precision_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    uploads = [make_upload("a", ["dark", "bright"])]
    taught = Readers.of(uploads, ["dark", "bright"], torch.ones(1, 4))
    seen: list[bool] = []
    ask = readers._ask
    monkeypatch.setattr(readers, "_ask", lambda *given: seen.append(torch.is_autocast_enabled("cpu")) or ask(*given))
    data = replace(two_colors(4), readers=taught)

    trainer.train(architectures.build("resnet18", 2, 72), data, PreprocessSpec(72), CONFIG, seed=0, num_updates=1)

    # The small net of the client is no net of torchvision's.
    assert seen == [False]
