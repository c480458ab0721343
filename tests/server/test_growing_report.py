"""The report is there before any client is asked to evaluate, and grows with what they tell."""

from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from rich.console import Console

from fedlmg_server import server_app
from fedlmg_server.monitor import watch
from fedlmg_server.report import growing
from fedlmg_server.results import Results, read_results
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.server.tiny_grid import Answer, TinyGrid, evaluates, sends

pytestmark = pytest.mark.usefixtures("drawn_in_this_process", "task")

CLIENTS = {7: "site-a", 8: "site-b"}
SETTINGS = {
    **{
        "warm-start": False,
        "witness": "off",
        "dataset": "",
        "num-clients": 2,
        "min-clients": 1,
        "deadline-seconds": 20.0,
    },
    **{"images-per-class": 1, "num-inference-steps": 2, "noise-editing-steps": 1, "student-epochs": 1},
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "run"


def run(workspace: Path, pipeline_folder: Path, evaluations: dict[int, Answer]) -> None:
    """A whole run whose clients answer EVALUATE so."""
    settings = SETTINGS | {"workspace": str(workspace), "diffusion-model": str(pipeline_folder)}
    script = {
        node: [sends(make_upload(name, ["cat", "dog"], seed=node).to_records()), evaluations[node]]
        for node, name in CLIENTS.items()
    }
    server_app.main(TinyGrid(script), Context(1, 1, {}, RecordDict(), settings))


def killed(question: Message) -> None:
    raise KeyboardInterrupt


def test_a_kill_while_evaluations_are_awaited_leaves_a_whole_report(workspace: Path, pipeline_folder: Path):
    with pytest.raises(KeyboardInterrupt):
        run(workspace, pipeline_folder, {7: killed, 8: killed})

    results = read_results(workspace / "report")
    assert {name: outcome.state for name, outcome in results.outcomes.items()} == {
        "site-a": "not evaluated",
        "site-b": "not evaluated",
    }
    assert results.synthesis.num_images == 4
    for file in ("report/index.html", "model/MODEL_CARD.md", "model/model.safetensors"):
        assert (workspace / file).stat().st_size


def test_evaluations_are_added_while_a_client_is_away(
    workspace: Path, pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(growing, "MOST_TIME", 1.0)
    monkeypatch.setattr(growing, "LEAST_SECONDS", 0.0)

    def away(question: Message) -> None:
        if read_results(workspace / "report").clients["site-a"].aggregated_accuracy == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workspace, pipeline_folder, {7: evaluates(0.5), 8: away})


def test_at_the_end_the_report_has_every_evaluation(workspace: Path, pipeline_folder: Path):
    run(workspace, pipeline_folder, {7: evaluates(0.5), 8: evaluates(0.75)})

    results: Results = read_results(workspace / "report")
    assert [client.aggregated_accuracy for client in results.clients.values()] == [0.5, 0.75]
    assert {outcome.state for outcome in results.outcomes.values()} == {"answered"}


def test_who_watches_is_told_that_the_report_is_there(workspace: Path, pipeline_folder: Path):
    with pytest.raises(KeyboardInterrupt):
        run(workspace, pipeline_folder, {7: killed, 8: killed})

    console = Console(record=True, width=500)
    watch.watch_run(workspace, console)
    assert f"the model and its report are ready: {workspace}/report/index.html" in console.export_text()


def test_a_report_that_cannot_be_written_keeps_no_model_from_its_clients(
    workspace: Path, pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr(growing, "write_report", broken)
    grid_ended: list[int] = []

    def counts(question: Message) -> Message | None:
        grid_ended.append(question.metadata.dst_node_id)
        return evaluates(0.5)(question)

    with pytest.raises(ValueError, match="no font"):
        run(workspace, pipeline_folder, {7: counts, 8: counts})

    assert sorted(grid_ended) == [7, 8]
    notes = [event.text for event in Workspace(workspace).read_events() if event.kind == "note"]
    assert notes == ["the report before the evaluation cannot be written: no font"]
