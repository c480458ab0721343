"""What a run measures of itself: with `compare` every method, without it only what it returns."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from common.config import Config
from common.storage import json_lines
from common.storage.atomic import write_json
from fedlmg_server import pipeline
from fedlmg_server.baselines import compare
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import parallel
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.report.table import print_results
from fedlmg_server.report.write import write_report
from fedlmg_server.run import Run
from fedlmg_server.synthesis import launch
from tests.manifests import saying

RETURNED = ["own-model", "ensemble", "fedlmg-specific-teacher"]
EVERY_METHOD = [*compare.UNTRAINED, *compare.TRAINED]


@pytest.fixture
def reported(finished: VirtualRun, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], dict]:
    """Writes the report of the finished run, with baselines or without; returns its results."""
    monkeypatch.setattr(
        parallel, "ProcessPoolExecutor", lambda workers, context, **start: ThreadPoolExecutor(1, **start)
    )
    score = {"quality": 0.5, "weight": 1.0, "reason": ""}
    write_json(finished.workspace.model / "quality.json", {"mnist": score})
    finished.workspace.log("stage", name="synthesis", state="finished", seconds=1.0, images=80)

    def report(with_baselines: bool) -> dict:
        set_compare(finished, with_baselines)
        write_report(finished, {"mnist": 0.5}, {}, {})
        return json.loads((finished.workspace.report / "results.json").read_text())

    return report


def set_compare(run: Run, value: bool) -> None:
    run.config = Config.from_run_config(run.config.to_run_config() | {"compare": value})


@pytest.mark.parametrize(("with_baselines", "methods"), [(False, RETURNED), (True, EVERY_METHOD)])
def test_methods_are_those_that_were_asked_for(reported, with_baselines: bool, methods: list[str]):
    assert list(reported(with_baselines)["methods"]) == methods


def test_a_method_is_as_accurate_with_baselines_as_without(reported):
    alone, among_all = reported(False)["methods"], reported(True)["methods"]

    assert alone == {name: among_all[name] for name in RETURNED}


def test_the_returned_model_is_the_one_that_is_measured(reported, finished: VirtualRun):
    rows = reported(False)["methods"]

    assert rows["fedlmg-specific-teacher"]["per_client"] == finished.measure(load_model(finished))


def test_the_order_in_which_clients_answer_changes_no_bit(reported, finished: VirtualRun):
    reported(False)
    answers = {"c": 0.1, "a": 0.2, "b": 0.3}

    def mean(evaluations: dict[str, float]) -> float:
        write_report(finished, evaluations, {}, {})
        return json.loads((finished.workspace.report / "results.json").read_text())["aggregated"]["accuracy"]

    assert mean(answers) == mean(dict(reversed(answers.items()))) == (0.2 + 0.3 + 0.1) / 3


@pytest.mark.parametrize("with_baselines", [False, True])
def test_page_and_table_say_how_to_measure_baselines_where_there_are_none(reported, finished, with_baselines: bool):
    results = reported(with_baselines)
    output = StringIO()
    print_results(results, finished.workspace.report / "index.html", Console(file=output, width=160))

    page = (finished.workspace.report / "index.html").read_text()
    assert ("fedlmg run --compare" in page, "fedlmg run --compare" in output.getvalue()) == (not with_baselines,) * 2
    assert ("prompts-only-fine-tuning" in page, "prompts-only" in output.getvalue()) == (with_baselines,) * 2
    assert "own-model" in page


def test_no_method_is_measured_where_the_clients_images_are_not_at_hand(reported, finished: VirtualRun):
    finished.uploads[0] = saying(finished.uploads[0], data="folder")

    results = reported(True)

    assert (results["methods"], results["matrix"], results["confusion"]) == ({}, {}, None)


@pytest.mark.parametrize(("with_baselines", "methods"), [(False, []), (True, ["prompts-only"])])
def test_unguided_images_are_generated_for_baselines_alone(
    finished: VirtualRun, monkeypatch: pytest.MonkeyPatch, with_baselines: bool, methods: list[str]
):
    workers = SimpleNamespace(wait=lambda *_: None)
    monkeypatch.setattr(launch, "start_workers", lambda *_: nullcontext(workers))
    next(finished.image_folder(finished.uploads[0], "prompts-only").glob("*/*.png")).unlink()
    set_compare(finished, with_baselines)

    pipeline.synthesise(finished)

    (plan,) = (event for event in json_lines.read(finished.workspace.events) if event["kind"] == "plan")
    assert plan["methods"] == methods
