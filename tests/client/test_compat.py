"""The undocumented parts of Flower that the client relies on are still what they were."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.supercore.error.base import ApiErrorCode, FlowerError

from common.compat import QUIET_FLOWER, read_exit
from fedlmg_client import compat
from tests import flower_source


def test_flower_sends_every_request_by_the_method_that_is_wrapped():
    from flwr.supercore.protobuf.client import ProtobufClient
    from flwr.supernode.fleet_http_client import FleetHttpClient

    parameters = inspect.signature(ProtobufClient._unary_unary).parameters

    assert issubclass(FleetHttpClient, ProtobufClient), "SuperNodes have another HTTP client: see wrap_requests"
    assert {"path", "request"} <= set(parameters), "Flower's HTTP client has other parameters: see wrap_requests"


@pytest.mark.parametrize("path", [compat.PUSH_OBJECT, compat.PULL_MESSAGES])
def test_a_supernode_still_asks_for_these_paths(path: str):
    assert flower_source.says(f'path="{path}"'), f"no request of a SuperNode goes to {path} now: see compat.py"


def test_weights_travel_in_pieces_of_the_size_in_the_variable():
    program = "from flwr.common import constant; print(constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {compat.CHUNK_SIZE_VARIABLE: "12345"},
        capture_output=True,
        text=True,
    )

    assert done.stdout == "12345\n", f"Flower no longer reads {compat.CHUNK_SIZE_VARIABLE}: {done.stderr}"


def test_a_superlink_answers_with_the_codes_that_are_explained():
    ended = ("FLEET_RUN_STATUS_NOT_ALLOWED", "FLEET_GET_RUN_FAILED", "FLEET_GET_FAB_FAILED")

    assert ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED.value == compat.KEY_NEEDED, "see KEY_NEEDED"
    assert ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED.value == compat.NOT_ACTIVATED, "see NOT_ACTIVATED"
    assert tuple(ApiErrorCode[name].value for name in ended) == compat.RUN_HAS_ENDED, "see RUN_HAS_ENDED"


def test_the_code_of_an_error_is_found_in_flowers_own_answer():
    error = FlowerError(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, "x")

    answer = json.dumps(error.to_json("Failed to activate SuperNode."))

    assert compat.read_error_code(answer) == compat.NOT_ACTIVATED


def test_clocks_may_differ_as_much_as_a_superlink_says():
    from flwr.supercore.constant import MAX_TIMESTAMP_DIFF_SECONDS, MIN_TIMESTAMP_DIFF_SECONDS

    least, most = compat.CLOCK_MAY_BE_OFF

    assert (least - 1, most + 5) == (MIN_TIMESTAMP_DIFF_SECONDS, MAX_TIMESTAMP_DIFF_SECONDS), "see CLOCK_MAY_BE_OFF"


@pytest.mark.slow
def test_the_exit_of_a_supernode_is_found_in_its_log(tmp_path: Path):
    key = tmp_path / "key"
    key.write_text("none")
    command = [
        str(Path(sys.executable).parent / "flower-supernode"),
        "--insecure",
        "--auth-supernode-private-key",
        str(key),
    ]

    done = subprocess.run(
        command, env=os.environ | QUIET_FLOWER, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )

    code, reason = read_exit(done.stdout + done.stderr)
    assert code in compat.LASTING_EXITS
    assert "private key" in reason
