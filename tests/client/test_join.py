"""`fedlmg-client`: keys, the status line, the choice of an architecture."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from typer.testing import CliRunner

from common.config import Config
from fedlmg_client import cli, join, keys, probe
from fedlmg_client.status import (
    ConnectionChanged,
    EvaluationStarted,
    ModelStored,
    PartSent,
    ReplySent,
    Status,
    StatusEvent,
    Trained,
    UploadStarted,
    append_event,
)

CONFIG = Config.from_run_config({"dataset": "", "local-epochs": 1, "architectures": "small_mobilenet_v3"})


def test_a_key_pair_is_openssh_p384_and_its_owners_alone(tmp_path: Path):
    public = keys.generate_key_pair(tmp_path / "site")

    private_key = load_ssh_private_key((tmp_path / "site").read_bytes(), None)
    assert private_key.curve.name == "secp384r1"
    assert load_ssh_public_key(public.read_bytes()) == private_key.public_key()
    # Windows has other rights: there a new file is its owner's by the rights of the folder.
    assert os.name == "nt" or stat.S_IMODE((tmp_path / "site").stat().st_mode) == 0o600


@pytest.mark.parametrize("present", ["site", "site.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, present: str):
    (tmp_path / present).write_text("mine")

    result = CliRunner().invoke(cli.app, ["keygen", str(tmp_path / "site")])

    assert result.exit_code == 1
    assert "never overwritten" in result.output
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def line_after(cache: Path, *events: StatusEvent) -> str:
    status = Status(cache)
    for event in events:
        append_event(cache, event)
    return status.poll()


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([], "waiting for the server"),
        ([Trained(epoch=3, epochs=20, seconds_left=600)], "training epoch 3/20, 10 min left"),
        (
            [Trained(epoch=3, epochs=20, seconds_left=9, name="a copy of small_resnet")],
            "training a copy of small_resnet, epoch 3/20, 9 s left",
        ),
        ([UploadStarted(bytes=44_000_000), PartSent(bytes=41_000_000)], "uploading 41.0 of 44.0 MB"),
        ([UploadStarted(bytes=9), ReplySent()], "uploaded, waiting for the model"),
        ([EvaluationStarted()], "measuring the returned model"),
        ([ModelStored(accuracy=0.5)], "done: the model has arrived, accuracy 50.0 % on your test images"),
        (
            [ModelStored(accuracy=0.5, personal=0.625)],
            "done: the model has arrived, accuracy 50.0 % on your test images; your personal model has 62.5 %",
        ),
        ([ConnectionChanged(reason="down")], "waiting for the server; down, trying again"),
        ([ConnectionChanged(reason="down"), ConnectionChanged(reason="")], "waiting for the server"),
    ],
)
def test_the_status_is_one_line(tmp_path: Path, events: list, line: str):
    assert line_after(tmp_path, *events) == line


def test_events_of_another_version_are_skipped(tmp_path: Path):
    status = Status(tmp_path)
    lines = ['{"kind": "training", "epoch": "3"}', '{"kind": "dreaming"}', "{}", '{"kind": "evaluating"}']

    (tmp_path / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))

    assert status.poll() == "measuring the returned model"


def test_a_join_does_not_show_what_happened_before_it(tmp_path: Path):
    append_event(tmp_path, ModelStored(accuracy=0.5))

    assert Status(tmp_path).poll() == "waiting for the server"


@pytest.mark.parametrize(("seconds", "chosen"), [(0.0, "resnet18"), (1e9, "small_mobilenet_v3")])
def test_auto_takes_the_largest_that_trains_in_time(monkeypatch: pytest.MonkeyPatch, seconds: float, chosen: str):
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: seconds)

    assert probe.choose_architecture(CONFIG, 2, 100, torch.device("cpu")) == chosen


def test_auto_leaves_out_what_does_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 0.0)
    monkeypatch.setattr(probe, "measure_free_memory", lambda _: 100e6)

    assert probe.choose_architecture(CONFIG, 2, 100, torch.device("cpu")) == "small_resnet"


def test_a_choice_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 0.0)
    first = probe.choose_architecture_once(tmp_path, CONFIG, 2, 100, torch.device("cpu"))
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 1e9)

    assert probe.choose_architecture_once(tmp_path, CONFIG, 2, 100, torch.device("cpu")) == first


@pytest.mark.parametrize(("deadline", "device"), [(60.0, "cpu"), (3600.0, "meta")], ids=["deadline", "device"])
def test_for_another_deadline_or_device_the_choice_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadline: float, device: str
):
    monkeypatch.setattr(probe, "measure_free_memory", lambda _: 1e12)
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 0.0)
    probe.choose_architecture_once(tmp_path, CONFIG, 2, 100, torch.device("cpu"))
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 1e9)
    changed = replace(CONFIG, clients=replace(CONFIG.clients, deadline_seconds=deadline))

    chosen = probe.choose_architecture_once(tmp_path, changed, 2, 100, torch.device(device))

    assert chosen == "small_mobilenet_v3"


def test_on_another_device_the_cost_of_a_copy_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    costs = []
    for seconds, device in ((0.0, "cpu"), (1.0, "meta")):
        monkeypatch.setattr(probe, "measure_step_seconds", lambda *_, seconds=seconds: seconds)
        costs.append(probe.estimate_copy_once(tmp_path, CONFIG, "small_mlp", 2, 100, torch.device(device)))

    assert costs[0].own_seconds < costs[1].own_seconds


@pytest.mark.parametrize("content", ["{bad", "[]"])
def test_a_choice_that_was_damaged_is_told_with_its_file(tmp_path: Path, content: str):
    (tmp_path / "architecture.json").write_text(content)

    with pytest.raises(ValueError, match=r"architecture\.json must be a JSON object, .*: remove it"):
        probe.choose_architecture_once(tmp_path, CONFIG, 2, 100, torch.device("cpu"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--key", "site"], "--key needs --name"),
        (["--key", "site.pub", "--name", "a"], "is not a private key"),
        (["--name", 'a "b"'], "must not contain a double quote"),
        (["--name", "a\nb"], "must have 1 to 100 printable characters"),
        (["--name", "x" * 101], "must have 1 to 100 printable characters"),
        (["--cache", "site/cache"], "choose another --cache"),
    ],
)
def test_what_could_never_join_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
):
    monkeypatch.chdir(tmp_path)
    keys.generate_key_pair(tmp_path / "site")
    (tmp_path / "images").mkdir()

    result = CliRunner().invoke(cli.app, ["join", "localhost", "--data", "images", *options])

    assert result.exit_code == 1
    assert sentence in result.output


def joined_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> dict:
    """The node config with which `join` would connect."""
    given: list[dict] = []
    monkeypatch.setattr(join, "keep_joined", lambda server, node_config, *_: given.append(node_config))
    (tmp_path / "images").mkdir()

    result = CliRunner().invoke(cli.app, ["join", "localhost", "--data", str(tmp_path / "images"), *options])

    assert result.exit_code == 0, result.output
    return given[0]


def test_a_client_says_what_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    options = ["--upload", "own", "--no-warm-start", "--no-share-evaluation"]

    given = joined_with(monkeypatch, tmp_path, *options)

    assert (given["upload"], given["warm-start"], given["share-evaluation"]) == ("own", False, False)


def test_unless_told_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert set(joined_with(monkeypatch, tmp_path)) == {"data-path", "cache-path"}


def test_another_upload_than_there_is_is_told(tmp_path: Path):
    (tmp_path / "images").mkdir()

    result = CliRunner().invoke(cli.app, ["join", "localhost", "--data", str(tmp_path / "images"), "--upload", "all"])

    assert result.exit_code == 1
    assert "'own', 'student' or 'both', got 'all'" in " ".join(result.output.split())


def test_predict_without_a_returned_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("common.clients.node_config.CACHES", tmp_path)

    result = CliRunner().invoke(cli.app, ["predict", "image.png"])

    assert result.exit_code == 1
    assert "there is no returned model" in result.output
