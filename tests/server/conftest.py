"""The strategy under test, who may take part, and a finished run."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.config import Config
from common.datasets.embedded.digits import CLASS_NAMES
from common.upload import Upload
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.diffusion.pretraining import tiny_pipeline
from fedlmg_server.distillation.aggregate import Distilled
from fedlmg_server.distillation.saved_model import save_model
from fedlmg_server.distillation.student import make_student
from fedlmg_server.flower.compat import act_as_task
from fedlmg_server.general import training
from fedlmg_server.run import Run
from fedlmg_server.synthesis import launch, scores, worker
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.plan import plan_images
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.witness import worker as hearing_worker
from fedlmg_server.workspace import Workspace
from tests.common.pictures import draw_classes
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server import tiny_federation
from tests.server.any_model import draws_anything
from tests.server.tiny_grid import SUPERLINK, Model

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def uploads() -> list[Upload]:
    """Of two clients that tell dark images from bright ones."""
    return [tiny_federation.trained("a"), tiny_federation.trained("b", seed=1)]


@pytest.fixture(scope="module")
def fit() -> Upload:
    return make_upload("site-a", ["cat", "dog"])


@pytest.fixture
def guidance(upload: Upload) -> ClassifierGuidance:
    return ClassifierGuidance.of_upload(upload, CPU, classification_weight=1.0, statistics_weight=0.1)


@pytest.fixture
def task() -> Iterator[None]:
    """Flower stamps every message with the task, the run and the node of its process."""
    with act_as_task(node_id=SUPERLINK):
        yield


@pytest.fixture(scope="module")
def drawn_in_this_process() -> Iterator[None]:
    """The workers' own code, without the seconds that starting two processes takes."""

    class Workers:
        def __init__(self, workspace: Workspace, world_size: int, methods: Sequence[str]) -> None:
            worker.work(Run.reopen(workspace.root, CPU), list(methods), 0, 1)

        def wait(self, *_: object) -> None: ...

    class Witnesses:
        def __init__(self, workspace: Workspace, *_: object) -> None:
            hearing_worker.work(Run.reopen(workspace.root, CPU), 0, 1)

        def wait(self, *_: object) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "start_workers", lambda *asked: nullcontext(Workers(*asked)))
        patch.setattr(launch, "running", lambda *asked: nullcontext(Witnesses(*asked)))
        yield


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained pipeline on disk."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.build_pipeline(channels=(16, 32)).save_pretrained(folder)
    return folder


@pytest.fixture
def make_strategy(tmp_path: Path, task: None) -> Callable[..., FedLMG]:
    def make(**changes: object) -> FedLMG:
        settings = {"warm-start": False, "dataset": "", "num-clients": 2, "min-clients": 1, "deadline-seconds": 0.2}
        settings |= {"workspace": str(tmp_path), **changes}
        config = Config.from_run_config(settings)
        model = Model({"weight": torch.ones(2)}, {"class_names": ["cat"]})
        workspace = Workspace.open(config, {})
        return FedLMG(config, workspace, lambda: model, poll_seconds=0.01, grace_seconds=0.02)

    return make


@pytest.fixture
def make_warm(
    make_strategy: Callable[..., FedLMG], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., FedLMG]:
    """A strategy with a warm start from a few public images, whose general models need not be good."""
    monkeypatch.setattr(training, "NEAR_CHANCE", 0.0)
    # No processes: they would take longer to start than to train.
    monkeypatch.setattr(training, "num_processors", lambda: 1)
    monkeypatch.setenv("FEDLMG_CACHE", str(tmp_path / "cache"))
    draw_classes(tmp_path / "public", count=6)

    def make(**changes: object) -> FedLMG:
        settings = {"warm-start": True, "public-images": str(tmp_path / "public"), "general-updates": 2}
        settings["diffusion-model"] = draws_anything(tmp_path / "diffusion")
        return make_strategy(**{**settings, **changes})

    return make


@pytest.fixture
def registry(tmp_path: Path) -> str:
    """Of clients `mnist`, node 7, and `printed`, node 8."""
    path = tmp_path / "clients.json"
    path.write_text(json.dumps({"mnist": {"key": "", "node": 7}, "printed": {"key": "", "node": 8}}))
    return str(path)


@pytest.fixture
def finished(tmp_path: Path) -> VirtualRun:
    return make_finished_run(tmp_path)


def make_finished_run(folder: Path) -> VirtualRun:
    """A run of one virtual client: its guided images are real ones of its test set, its unguided ones noise, and its
    classifier and the model given back are untrained."""
    run = begin_run(folder)
    for made in finish_once():
        shutil.copytree(made, folder / made.name, dirs_exist_ok=True)
    return run


@cache
def finish_once() -> list[Path]:
    """The folders of such a run that the stages fill, to be copied."""
    run = begin_run(Path(tempfile.mkdtemp(prefix="finished-", dir=os.environ["FEDLMG_CACHE"])))
    save_model(run, Distilled(make_student(run), [], {}, {}))
    test, (upload,) = run.test["mnist"], run.uploads
    noise = torch.randint(0, 256, test.images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for method, images in (("fedlmg", test.images), ("prompts-only", noise)):
        rows = {number: iter((test.labels == number).nonzero().flatten().tolist()[1::2]) for number in range(10)}
        save_planned(run.image_folder(upload, method), images, rows)
    return [run.workspace.model, *run.workspace.root.glob("synthetic*")]


def begin_run(folder: Path) -> VirtualRun:
    keys = {"num-clients": 1, "min-clients": 1, "images-per-class": 8, "min-confidence": 0.0, "student-epochs": 1}
    config = Config.from_run_config(keys | {"workspace": str(folder), "warm-start": False})
    run = VirtualRun(config, Workspace.open(config, {}), CPU)
    run.uploads = [saying(make_upload("mnist", list(CLASS_NAMES)), data="digits/mnist")]
    return run


def save_planned(folder: Path, images: torch.Tensor, rows: dict[int, Iterator[int]]) -> None:
    """The planned images of every class, from these rows of the images."""
    for planned in plan_images(0, "mnist", list(CLASS_NAMES), 8):
        path = planned.path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = images[next(rows[CLASS_NAMES.index(planned.class_name)])].permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(path)
        scores.append_scores(folder / "scores-0.jsonl", [Score(planned.file, planned.class_name, 1.0, True)])
