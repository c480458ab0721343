"""The undocumented parts of Flower, PyTorch, diffusers and accelerate that the server uses are still what they were."""

import logging

import pytest
import torch
from diffusers import AutoencoderTiny
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.logger import FLOWER_LOGGER

from fedlmg_server.flower import compat
from tests import flower_source


@pytest.mark.parametrize("name", ["UNKNOWN", "MESSAGE_UNAVAILABLE", "NODE_UNAVAILABLE", "CLIENT_APP_CRASHED"])
def test_error_codes_are_flowers_own(name: str):
    assert getattr(compat, name) == getattr(ErrorCode, name), f"Flower's code {name} has changed: see flower/compat.py"


@pytest.mark.parametrize("text", [*compat.LOST, *compat.NO_INSTALLATION])
def test_flower_still_has_the_texts_that_are_looked_for(text: str):
    assert flower_source.says(f'"{text}"'), f"Flower does not say {text!r} any more: see flower/compat.py"


@pytest.mark.parametrize("beginning", [compat.KEY_IN_USE, compat.NO_SUCH_NODE])
def test_flowers_errors_on_clients_still_begin_with_these_texts(beginning: str):
    assert flower_source.says(f'"{beginning}'), f"Flower does not say {beginning!r} any more: see flower/compat.py"


def test_a_superlink_has_the_paths_that_are_asked_for():
    assert flower_source.says(f'prefix="{compat.FLEET_API.rstrip("/")}"'), "the Fleet API moved: see FLEET_API"
    assert flower_source.says(f'.get("{compat.HEALTH}"'), "the SuperLink's health moved: see HEALTH"


def test_a_message_can_be_made_outside_a_flower_process_and_only_meanwhile():
    with compat.act_as_task(run_id=3, node_id=4):
        message = Message(RecordDict(), dst_node_id=5, message_type="train")

    assert (message.metadata.run_id, message.metadata.src_node_id) == (3, 4), "see act_as_task in flower/compat.py"
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), dst_node_id=5, message_type="train")


def test_flowers_logger_is_quiet_and_then_as_it_was():
    before = FLOWER_LOGGER.level

    with compat.quiet_logger():
        assert not FLOWER_LOGGER.isEnabledFor(logging.INFO), "Flower has another logger: see LOGGER in flower/compat.py"
        assert FLOWER_LOGGER.isEnabledFor(logging.WARNING)

    assert FLOWER_LOGGER.level == before


def test_torch_compiles_for_more_shapes_than_its_own_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    compiled: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list) -> torch.fx.GraphModule:
        compiled.append(1)
        return graph

    torch._dynamo.reset()
    compat.raise_recompile_limit(16)
    double = torch.compile(lambda x: 2 * x, backend=count, dynamic=False)
    for size in range(2, 7):
        double(torch.ones(size))

    assert len(compiled) == 5, "torch.compile has another limit now: see raise_recompile_limit in flower/compat.py"


def test_a_saved_part_does_not_name_the_folder_that_it_came_from(tmp_path):
    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(tmp_path)
    part = AutoencoderTiny.from_pretrained(tmp_path)

    compat.forget_origin(part)

    part.save_pretrained(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text(), "see forget_origin in compat.py"


def test_accelerate_names_its_trackers():
    known, installed = compat.list_trackers()

    assert {"tensorboard", "mlflow", "wandb"} <= set(known)
    assert "tensorboard" in installed
