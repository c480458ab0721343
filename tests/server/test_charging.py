"""A client of which something fails while the run draws or distils is charged, and the run goes on without it."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.config import Config, ConfigError
from fedlmg_server import pipeline
from fedlmg_server.events import ClientEvent
from fedlmg_server.quarantine import ClientFault, read_rejections
from fedlmg_server.run import Run
from fedlmg_server.synthesis import generate, incidents, launch, worker
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying

HERE = "tests.server.bad_builders"
BAD = ("raising", "dying", "not_finite", "raising_as_teacher")


@pytest.fixture
def make_run(tmp_path: Path, pipeline_folder: Path):
    """A run of honest clients, and of clients named for the nets of theirs that fail."""
    settings = {
        "workspace": str(tmp_path / "workspace"),
        "dataset": "",
        "warm-start": False,
        "witness": "off",
        "diffusion-model": str(pipeline_folder),
        "architectures": ",".join(["small_resnet", *(f"{HERE}:{name}" for name in BAD)]),
        "images-per-class": 5,
        "num-inference-steps": 2,
        "noise-editing-steps": 0,
        "min-confidence": 0.0,
        "student-epochs": 1,
        "teacher-weighting": "uniform",
    }

    def make(*clients: str, **changes: object) -> Run:
        config = Config.from_run_config(settings | {key.replace("_", "-"): value for key, value in changes.items()})
        run = Run(config, Workspace.open(config, {}), torch.device("cpu"))
        send(run, *clients)
        return run

    return make


def send(run: Run, *clients: str) -> None:
    """Uploads arrive, as clients send them again in every run."""
    for seed, client in enumerate(clients):
        upload = make_upload(client, ["cat", "dog"], seed=seed)
        if client in BAD:
            upload = saying(upload, architecture=f"{HERE}:{client}")
        upload.save(run.workspace.upload(client))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The workers' own code without processes; the list has the clients drawn for, in turn."""
    drawn = []
    draw = worker.generate_for_client
    monkeypatch.setattr(worker, "generate_for_client", lambda *asked: drawn.append(asked[2].client) or draw(*asked))

    @contextmanager
    def start(workspace: Workspace, world_size: int, methods: Sequence[str]) -> Iterator[SimpleNamespace]:
        while methods:
            try:
                worker.work(Run.reopen(workspace.root, torch.device("cpu")), list(methods), 0, 1)
                break
            except ClientFault as fault:
                for client, reason in fault.reasons.items():
                    incidents.note_failure(workspace, client, reason)
        yield SimpleNamespace(wait=lambda *_: None)

    monkeypatch.setattr(launch, "start_workers", start)
    return drawn


@pytest.mark.slow
def test_clients_that_fail_in_workers_are_charged_and_the_run_ends_with_a_model(make_run):
    run = make_run("honest", "other", *BAD)

    model = pipeline.aggregate(run)

    rejected = read_rejections(run.workspace)
    assert model.arrays
    assert [upload.client for upload in run.uploads] == ["honest", "other"]
    assert rejected.keys() == set(BAD)
    assert "its images cannot be drawn (ValueError: too many images)" in rejected["raising"]
    assert "2 processes died while they drew its images, the last with exit code 0 at batch 1" in rejected["dying"]
    assert "its first 10 images are all rejected, as not finite" in rejected["not_finite"]
    assert "fails on synthetic images (ValueError: too many images to read)" in rejected["raising_as_teacher"]
    quarantined = [event.name for event in run.workspace.read_events() if isinstance(event, ClientEvent)]
    assert sorted(quarantined) == sorted(BAD)
    assert sorted(path.name for path in run.workspace.root.glob("synthetic/*")) == ["honest", "other"]


def test_the_model_is_as_if_the_charged_client_had_not_come(make_run, in_this_process: list[str], tmp_path: Path):
    without = pipeline.aggregate(make_run("honest", "other", workspace=str(tmp_path / "without")))

    with_it = pipeline.aggregate(make_run("honest", "other", "raising"))

    assert all(torch.equal(without.arrays[name], value) for name, value in with_it.arrays.items())


def test_a_retry_does_not_draw_for_a_charged_client(make_run, in_this_process: list[str]):
    pipeline.aggregate(run := make_run("honest", "other", "raising", "not_finite"))
    first = read_rejections(run.workspace)
    in_this_process.clear()

    pipeline.aggregate(again := make_run("honest", "other", "raising", "not_finite"))

    assert in_this_process == []
    assert [upload.client for upload in again.uploads] == ["honest", "other"]
    assert read_rejections(again.workspace) == first


def test_below_the_quorum_the_run_ends_with_a_sentence(make_run, in_this_process: list[str]):
    with pytest.raises(ConfigError, match=r"1 valid uploads, but 'min-clients' is 2 \(raising: client 'raising': its"):
        pipeline.aggregate(make_run("honest", "raising"))


def test_what_fails_for_every_client_is_charged_to_none(make_run, in_this_process: list[str], monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(generate, "generate_batch", fail)
    run = make_run("honest", "other", images_per_class=2)

    with pytest.raises(ConfigError, match=r"with any of its clients, so none is charged .*out of luck"):
        pipeline.aggregate(run)

    assert [upload.client for upload in Run.reopen(run.workspace.root).uploads] == ["honest", "other"]
    assert read_rejections(run.workspace) == {}


def test_a_full_disk_is_charged_to_nobody(make_run, in_this_process: list[str], monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    monkeypatch.setattr(generate, "score_batch", fail)
    run = make_run("honest", "other", images_per_class=2)

    with pytest.raises(OSError, match="No space left"):
        pipeline.aggregate(run)

    assert incidents.read_failures(run.workspace) == {}


def test_a_process_that_dies_once_is_started_again_and_nobody_is_charged(make_run, tmp_path: Path):
    run = make_run("honest", "other", images_per_class=2)
    mark, position = tmp_path / "died", {"client": "honest", "batch": 3}
    code = (
        "import json, os, pathlib, sys\n"
        f"mark, at = pathlib.Path({str(mark)!r}), pathlib.Path({str(run.workspace.root)!r}) / 'incidents'\n"
        "if not mark.exists():\n"
        "    mark.write_text(''), at.mkdir()\n"
        f"    (at / f'at-{{os.getpid()}}.json').write_text(json.dumps({position!r}))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "mortal.py").write_text(code)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with launch.running(run.workspace, ["mortal"], "mortal", 1) as workers:
            workers.wait(lambda: False, lambda: 0, lambda count: None)

    assert mark.exists()
    assert incidents.read_failures(run.workspace) == {}


def test_some_images_that_are_not_finite_are_rejected_and_the_others_learned_from(
    make_run, in_this_process: list[str], monkeypatch: pytest.MonkeyPatch
):
    whole = generate.generate_batch

    def spoilt(*asked: object) -> torch.Tensor:
        images = whole(*asked)
        images[0] = torch.nan
        return images

    monkeypatch.setattr(generate, "generate_batch", spoilt)
    run = make_run("honest", "other", images_per_class=2)

    pipeline.aggregate(run)

    assert run.model_description["rejected"] == {name: {"cat": {"not-finite": 1}} for name in ("honest", "other")}
