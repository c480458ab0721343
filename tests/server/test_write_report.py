"""What a run measures of itself: with `compare` every method, without it only what it returns."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from torchvision.transforms.v2.functional import to_pil_image

from common.config import Config
from common.evaluation import Evaluation
from common.storage.atomic import write_json
from fedlmg_server import pipeline
from fedlmg_server.baselines import compare, start
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import parallel
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.events import PlanMade, Progress, StageFinished
from fedlmg_server.general.models import make_general_models
from fedlmg_server.method_names import UPPER_BOUNDS
from fedlmg_server.report.measuring import Measuring
from fedlmg_server.report.table import print_results
from fedlmg_server.report.write import write_report
from fedlmg_server.results import GeneralResult, Results, read_results
from fedlmg_server.run import Run
from fedlmg_server.synthesis import launch
from tests.manifests import saying
from tests.server.conftest import make_finished_run
from tests.server.tiny_federation import keep

RETURNED = ["local-own", "ensemble", "fedlmg-specific-teacher"]
EVERY_METHOD = [name for name in (*compare.UNTRAINED, *compare.TRAINED) if name != "centralised-with-general"]
"""Of a run without a warm start."""


@pytest.fixture(autouse=True, scope="module")
def _in_one_process() -> Iterator[None]:
    """Students are trained in this process, without the seconds that starting others takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "ProcessPoolExecutor", lambda workers, context, **start: ThreadPoolExecutor(1, **start))
        yield


def prepare(run: VirtualRun, with_baselines: bool) -> None:
    """What the stages before the report leave behind."""
    score = {"quality": 0.5, "weight": 1.0, "reason": ""}
    write_json(run.workspace.model / "quality.json", {"mnist": score})
    run.workspace.log(StageFinished(name="synthesis", seconds=1.0, images=80))
    set_compare(run, with_baselines)


def write(run: VirtualRun, evaluations: dict[str, Evaluation]) -> None:
    write_report(run, evaluations, {}, {}, Measuring(run).measure(evaluations))


def report(run: VirtualRun, with_baselines: bool) -> Results:
    """Writes the report of a finished run; returns its results."""
    prepare(run, with_baselines)
    write(run, {"mnist": Evaluation(num_examples=500, returned=0.5)})
    return read_results(run.workspace.report)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, VirtualRun]:
    """A run whose report has no baselines, and one whose report has them: to be read, not to be changed."""
    found = {with_baselines: make_finished_run(tmp_path_factory.mktemp("finished")) for with_baselines in (False, True)}
    for with_baselines, run in found.items():
        report(run, with_baselines)
    return found


def set_compare(run: Run, value: bool) -> None:
    run.config = Config.from_run_config(run.config.to_run_config() | {"compare": value})


@pytest.mark.parametrize(("with_baselines", "methods"), [(False, RETURNED), (True, EVERY_METHOD)])
def test_methods_are_those_that_were_asked_for(runs, with_baselines: bool, methods: list[str]):
    assert list(read_results(runs[with_baselines].workspace.report).methods) == methods


@pytest.mark.parametrize("stage", ["measurement", "baselines"])
def test_every_model_that_is_measured_is_told(runs, stage: str):
    run = runs[True]
    told = [event for event in run.workspace.read_events() if isinstance(event, Progress) and event.stage == stage]

    expected = 3 * len(run.uploads) if stage == "measurement" else len(compare.trained_methods(run))
    assert [told[0].completed, told[-1].completed, told[-1].total] == [1, expected, expected]


def test_a_method_is_as_accurate_with_baselines_as_without(runs):
    alone, among_all = (read_results(runs[key].workspace.report).methods for key in (False, True))

    assert alone == {name: among_all[name] for name in RETURNED}


def test_the_returned_model_is_the_one_that_is_measured(runs):
    rows = read_results(runs[False].workspace.report).methods

    assert rows["fedlmg-specific-teacher"].per_client == runs[False].measure(load_model(runs[False]))


def test_the_returned_model_is_as_accurate_as_the_clients_in_it_say(finished: VirtualRun):
    prepare(finished, False)
    answers = {"quarantined": 0.1, "mnist": 0.5}

    write(finished, {name: Evaluation(num_examples=1, returned=accuracy) for name, accuracy in answers.items()})

    assert read_results(finished.workspace.report).aggregated.accuracy == 0.5


@pytest.mark.parametrize("with_baselines", [False, True])
def test_page_and_table_say_how_to_measure_baselines_where_there_are_none(runs, with_baselines: bool):
    path, output = runs[with_baselines].workspace.report / "index.html", StringIO()
    print_results(read_results(path.parent), path, Console(file=output, width=160))

    page = path.read_text()
    assert ("fedlmg run --compare" in page, "fedlmg run --compare" in output.getvalue()) == (not with_baselines,) * 2
    assert ("prompts-only-fine-tuning" in page, "prompts-only" in output.getvalue()) == (with_baselines,) * 2
    assert "local (own test set)" in page


def test_no_method_is_measured_where_the_clients_images_are_not_at_hand(finished: VirtualRun):
    finished.uploads[0] = saying(finished.uploads[0], data="folder")

    results = report(finished, True)

    assert (results.methods, results.matrix, results.confusion) == ({}, {}, None)


@pytest.mark.parametrize(("with_baselines", "methods"), [(False, []), (True, ["prompts-only"])])
def test_unguided_images_are_generated_for_baselines_alone(
    finished: VirtualRun, monkeypatch: pytest.MonkeyPatch, with_baselines: bool, methods: list[str]
):
    lost = next(finished.image_folder(finished.uploads[0], "prompts-only").glob("*/*.png"))
    content = lost.read_bytes()
    workers = SimpleNamespace(wait=lambda *_: lost.write_bytes(content))
    monkeypatch.setattr(launch, "start_workers", lambda *_: nullcontext(workers))
    lost.unlink()
    set_compare(finished, with_baselines)

    pipeline.synthesise(finished)

    (plan,) = (event for event in finished.workspace.read_events() if isinstance(event, PlanMade))
    assert plan.methods == methods


@pytest.mark.parametrize("warm", [False, True])
def test_a_warm_start_s_general_images_are_told(finished: VirtualRun, warm: bool):
    write_json(finished.workspace.general / "images.json", {"source": "public", "num_images": 60})
    prepare(finished, False)
    finished.config = Config.from_run_config(finished.config.to_run_config() | {"warm-start": warm})

    write(finished, {})

    general = read_results(finished.workspace.report).general
    assert general == (GeneralResult(source="public", num_images=60) if warm else None)
    card = (finished.workspace.model / "MODEL_CARD.md").read_text()
    assert ("comes from 60 labelled public images" in card) == warm


def test_a_warm_started_run_is_compared_with_what_needs_no_client(finished: VirtualRun, tmp_path: Path):
    for number, label in enumerate(finished.test["mnist"].labels[:60].tolist()):
        file = tmp_path / "public" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(finished.test["mnist"].images[number]).save(file)
    keys = {"warm-start": True, "compare": True, "public-images": str(tmp_path / "public"), "general-updates": 2}
    finished.config = Config.from_run_config(finished.config.to_run_config() | keys)
    make_general_models(finished, ["small_resnet"])
    prepare(finished, True)

    write(finished, {"mnist": Evaluation(num_examples=500, returned=0.5)})

    results = read_results(finished.workspace.report)
    assert list(results.methods) == [*compare.UNTRAINED, "general", *compare.TRAINED[:-2], *UPPER_BOUNDS]
    assert results.methods["general"].per_client == start.measure_general(finished)
    assert results.general.source == "public"


@pytest.mark.parametrize(("told", "expected"), [(0.25, 0.25), (None, "of the upload")])
def test_a_client_s_own_accuracy_is_measured_as_its_others_are(finished: VirtualRun, told: float | None, expected):
    """A class that its upload leaves out is among the test images of its evaluation alone."""
    prepare(finished, False)

    write(finished, {"mnist": Evaluation(num_examples=500, own=told)})

    of_upload = finished.uploads[0].manifest.training.test_accuracy
    assert of_upload != 0.25
    own = read_results(finished.workspace.report).clients["mnist"].own_accuracy
    assert own == (of_upload if expected == "of the upload" else expected)


def test_models_that_a_client_keeps_have_rows_and_figures(finished: VirtualRun):
    model = finished.uploads[0]
    keep(finished, "mnist", model, model.class_names)
    prepare(finished, False)

    write(finished, {"mnist": Evaluation(num_examples=500, personal=0.25, no_federation=0.125)})

    results = read_results(finished.workspace.report)
    client = results.clients["mnist"]
    # The model is the client's own.
    assert results.methods["personal"].per_client == results.methods["local-own"].per_client
    assert client.personal_accuracy_all_clients == client.own_accuracy_all_clients
    assert (client.personal_accuracy, client.no_federation_accuracy) == (0.25, 0.125)
