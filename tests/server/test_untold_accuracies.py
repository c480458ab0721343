"""A run of a client that does not share its evaluation: its report shows no accuracy of that client."""

from io import StringIO
from pathlib import Path

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from rich.console import Console

from fedlmg_client import client_app
from fedlmg_server import server_app
from fedlmg_server.report.table import print_results
from fedlmg_server.results import Results, read_results
from tests.common.pictures import draw_classes
from tests.server.tiny_grid import TinyGrid

pytestmark = pytest.mark.usefixtures("drawn_in_this_process", "task")

SETTINGS = {
    **{"warm-start": False, "witness": "off", "dataset": "", "num-clients": 1, "min-clients": 1},
    **{"architectures": "small_resnet", "local-epochs": 1, "deadline-seconds": 20.0, "images-per-class": 1},
    **{"num-inference-steps": 2, "noise-editing-steps": 1, "student-epochs": 1},
}
HANDLERS = {MessageType.TRAIN: client_app.train_and_upload, MessageType.EVALUATE: client_app.take_and_evaluate}


@pytest.fixture
def results(tmp_path: Path, pipeline_folder: Path) -> Results:
    """Of a whole run of one real client."""
    for split in ("train", "validation", "test"):
        draw_classes(tmp_path / "images" / split, count=3)
    own = {"name": "site-a", "data-path": str(tmp_path / "images"), "cache-path": str(tmp_path / "cache")}
    own |= {"share-evaluation": False}
    settings = SETTINGS | {"workspace": str(tmp_path / "run"), "diffusion-model": str(pipeline_folder)}

    def client(question: Message) -> Message:
        handler = HANDLERS[question.metadata.message_type]
        return handler(question, Context(1, 7, own, RecordDict(), settings))

    server_app.main(TinyGrid({7: [client, client]}), Context(1, 1, {}, RecordDict(), settings))
    return read_results(tmp_path / "run" / "report")


def test_no_accuracy_of_it_is_in_the_report(results: Results):
    client = results.clients["site-a"]

    told = client.model_dump()
    assert {name for name, value in told.items() if name.endswith("_accuracy") and value} == set()


def test_the_table_has_a_dash_for_each_of_its_accuracies(results: Results, tmp_path: Path):
    output = StringIO()

    print_results(results, tmp_path, Console(file=output, width=160))

    (row,) = (line for line in output.getvalue().splitlines() if "site-a" in line and "small_resnet" in line)
    assert row.split()[-4:] == ["\N{EN DASH}"] * 4
