"""`fedlmg forget` leaves no word of the client in the workspace, and keeps every word of the others."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from common.manifest import Epoch
from common.names import safe_name
from common.storage.atomic import write_json
from fedlmg_server import server_app
from fedlmg_server.cli import app
from fedlmg_server.erasure.files import erase, find_words
from fedlmg_server.erasure.words import Words
from fedlmg_server.events import ClientEvent, Loss, Note, Progress, RunFailed, StageFinished
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import make_training, saying
from tests.server.tiny_grid import TinyGrid, evaluates, sends

CLIENTS = ("site-a", "Klinik S\u00fcd", "Klinik S\u00fcd-2")
GONE = CLIENTS[1]
SETTINGS = {
    **{"warm-start": False, "dataset": "", "num-clients": 3, "min-clients": 1, "trackers": "tensorboard"},
    **{"images-per-class": 1, "num-inference-steps": 2, "noise-editing-steps": 1, "student-epochs": 1},
}


def spellings(name: str) -> list[bytes]:
    return [name.encode(), json.dumps(name)[1:-1].encode(), safe_name(name).encode()]


def holders(root: Path, words: list[bytes]) -> set[str]:
    """Files that hold one of the words in content or path; the client whose name is longer is another."""
    other = [*map(bytes, spellings(CLIENTS[2]))]
    found = set()
    for path in root.rglob("*"):
        content = (path.read_bytes() if path.is_file() else b"") + str(path.relative_to(root)).encode()
        for word in other:
            content = content.replace(word, b"")
        if any(word in content for word in words):
            found.add(str(path.relative_to(root)))
    return found


@pytest.mark.usefixtures("drawn_in_this_process", "task")
def test_after_forget_no_file_of_a_finished_run_holds_name_or_checksum(tmp_path: Path, pipeline_folder: Path):
    root = tmp_path / "run"
    trained = make_training(history=[Epoch(epoch=1, train_loss=0.5)])
    uploads = {
        name: saying(make_upload(name, ["cat", "dog"], seed=seed), training=trained)
        for seed, name in enumerate(CLIENTS)
    }
    script = {n: [sends(upload.to_records()), evaluates(0.5)] for n, upload in enumerate(uploads.values(), 7)}
    settings = SETTINGS | {"workspace": str(root), "diffusion-model": str(pipeline_folder)}
    server_app.main(TinyGrid(script), Context(1, 1, {}, RecordDict(), settings))
    workspace = Workspace(root)
    (root / "flower.log").write_text(f"{GONE}: epoch 1\n{CLIENTS[2]}: epoch 1\n")
    words = [*spellings(GONE), uploads[GONE].manifest.sha256.encode()]
    assert {"events.jsonl", "nodes.json", "report/results.json"} <= holders(root, words)
    assert any("tfevents" in file for file in holders(root, words))

    said = CliRunner().invoke(app, ["forget", GONE, "--workspace", str(root)])

    assert said.exit_code == 0, said.output
    assert holders(root, words) == set()
    assert "No file of the workspace holds the client's name any more." in said.output
    assert "Flower's database" in said.output
    assert {event.name for event in workspace.read_events() if isinstance(event, ClientEvent)} == {"site-a", CLIENTS[2]}
    assert json.loads((root / "nodes.json").read_text()) == {"7": "site-a", "9": CLIENTS[2]}
    assert (root / "flower.log").read_text() == f"{CLIENTS[2]}: epoch 1\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_rooms_that_are_new_lose_what_is_named_after_the_client(workspace: Workspace):
    for client in ("site-b", "site-b2"):
        write_json(workspace.root / "heard" / f"{client}.json", {"verdict": "unknown"})
        write_json(workspace.root / "judged" / "twice" / client / "found.json", {})
    write_json(workspace.root / "heard" / "all.json", {"site-b": 1, "site-b2": {"looks like": ["site-b", "a"]}})

    erase(workspace, Words("site-b"))

    files = {str(path.relative_to(workspace.root)) for path in workspace.root.rglob("*.json")}
    assert files == {"heard/site-b2.json", "heard/all.json", "judged/twice/site-b2/found.json"}
    assert json.loads((workspace.root / "heard" / "all.json").read_text()) == {"site-b2": {"looks like": ["a"]}}


@pytest.mark.parametrize("name", ["clients", "salt", "found", "verdict", "unknown", "0"])
def test_a_name_that_is_a_word_of_the_server_s_takes_nothing_of_the_run_away(workspace: Workspace, name: str):
    workspace.class_notes.note_found(["0", "1"], {"site-a": {"zero": "unknown"}})
    workspace.forgotten.add(["site-b"])
    finding = {"upload": "f00d", "verdict": {"state": "unknown"}}
    write_json(workspace.finding("site-a"), finding)

    erase(workspace, Words(name))

    assert "site-b" in workspace.forgotten
    notes = workspace.class_notes
    assert (notes.known, notes.left_out) == (["0", "1"], {"site-a": {"zero": "unknown"}})
    assert json.loads(workspace.finding("site-a").read_text()) == finding


def test_a_client_whose_folder_begins_alike_keeps_it(workspace: Workspace):
    other = safe_name("site b")
    for room in ("uploads", "judged"):
        write_json(workspace.root / room / other / "manifest.json", {})
    assert other.startswith("site_b.")

    erase(workspace, Words("site_b"))

    assert len(list(workspace.root.rglob("manifest.json"))) == 2


def test_a_class_of_the_client_s_name_keeps_its_images(workspace: Workspace):
    image = workspace.synthetic("zoo") / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.touch()
    incident = workspace.root / "incidents" / "failed" / "cat.json"
    write_json(incident, {"client": "cat"})

    erase(workspace, Words("cat"))

    assert (image.exists(), incident.exists()) == (True, False)


def test_what_cannot_be_rewritten_is_listed(workspace: Workspace):
    (workspace.root / "mine").mkdir()
    (workspace.root / "mine" / "notes.txt").write_text("ask site-b")
    (workspace.root / "mine" / "run.wandb").write_bytes(b"\0\1site-b\2" + b"abc123" * 10)
    (workspace.root / "other.txt").write_text("ask site-b2 and website-b")

    found = find_words(workspace.root, Words("site-b", ["f00d" * 16]))

    assert found == ["mine/notes.txt", "mine/run.wandb"]


def test_events_of_the_run_and_of_other_clients_stay(workspace: Workspace):
    kept = [
        StageFinished(name="images", seconds=1.0),
        Progress(stage="images", completed=1, total=2, unit="images"),
        Loss(series="images", step=1, value=0.5),
        ClientEvent(name="site-a", state="answered"),
    ]
    gone = [
        ClientEvent(name="images", state="answered"),
        Loss(series="statistics, images", step=1, value=0.5),
        Note(text="'images' came late"),
    ]
    other = ClientEvent(name="site-b", state="quarantined", reason="it reads as images does")
    failed = RunFailed(reason="only 1 of 2 uploads arrived (images: no answer)")
    for event in (*kept, *gone, other, failed):
        workspace.log(event)

    erase(workspace, Words("images"))

    *first, second, last = workspace.read_events()
    assert first == kept
    assert second == other.model_copy(update={"reason": "it reads as a removed client does"})
    assert last == failed.model_copy(update={"reason": "only 1 of 2 uploads arrived (a removed client: no answer)"})


def test_rows_of_a_trackers_database_go(workspace: Workspace):
    path = workspace.root / "trackers" / "mlflow.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE metrics (key TEXT, value REAL)")
        rows = [("loss/training/site-b", 1.0), ("loss/training/site-b2", 2.0), ("loss/distillation", 3.0)]
        database.executemany("INSERT INTO metrics VALUES (?, ?)", rows)
        database.commit()

    erase(workspace, Words("site-b"))

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT key FROM metrics").fetchall() == [(key,) for key, _ in rows[1:]]
    assert b"site-b\0" not in path.read_bytes()
    assert find_words(workspace.root, Words("site-b")) == []
