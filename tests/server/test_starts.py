"""Starts for clients: general models as they travel, and the replay images that a run keeps."""

import pytest
import torch

from common.start import Start
from common.upload import weights_digest
from fedlmg_server.events import Note
from fedlmg_server.general import starts, training
from fedlmg_server.general.images import GeneralImages
from fedlmg_server.general.models import load_general_model, make_general_models
from fedlmg_server.general.starts import load_replay, make_start
from tests.server import tiny_general

images, make_run = tiny_general.images, tiny_general.make_run


def test_a_model_near_chance_is_told_and_not_offered(make_run, images: GeneralImages):
    run = make_run()
    images.train.labels[:] = torch.randint(0, 2, (64,), generator=torch.Generator().manual_seed(0))

    start = make_start(run, ["small_mlp"])

    assert start.models == {}
    assert any("near chance" in event.text for event in run.workspace.read_events() if isinstance(event, Note))


def test_a_start_holds_the_models_of_the_workspace_and_survives_the_wire(make_run):
    run = make_run(general_updates=40)
    start = make_start(run, ["small_mlp"])

    received = Start.from_records(start.to_records())

    assert received is not None
    assert received.digest("small_mlp") == start.digest("small_mlp")
    assert all(tensor.dtype == torch.float16 for tensor in received.models["small_mlp"].values())
    built, loaded = received.build("small_mlp"), load_general_model(run, "small_mlp")
    assert weights_digest(built.state_dict()) == weights_digest(loaded.state_dict())


def test_replay_keeps_to_its_bound_and_is_balanced(make_run):
    replay = load_replay(make_run(replay_megabytes=0.01))

    assert len(replay) == 10_000 // (3 * 16 * 16)
    assert abs(torch.bincount(replay.labels).diff().item()) <= 1


def test_no_megabytes_are_no_replay(make_run):
    assert len(make_start(make_run(replay_megabytes=0.0), []).replay) == 0


def test_all_clients_receive_the_replay_images_that_the_run_keeps(make_run, monkeypatch: pytest.MonkeyPatch):
    run = make_run()
    first = load_replay(run)
    monkeypatch.setattr(starts, "load_general_images", None)

    assert torch.equal(load_replay(run).images, first.images)


def test_a_start_with_a_value_beyond_float16_arrives_as_it_was(make_run, monkeypatch: pytest.MonkeyPatch):
    train = training.trainer.train

    def widened(model: torch.nn.Module, *arguments: object, **more: object) -> None:
        train(model, *arguments, **more)
        model.state_dict()["stem.1.running_var"][0] = 70_000

    monkeypatch.setattr(training.trainer, "train", widened)
    run = make_run()
    make_general_models(run, ["small_resnet"])

    sent = Start.from_records(make_start(run, ["small_resnet"]).to_records())

    assert sent.models["small_resnet"]["stem.1.running_var"][0] == 70_000
