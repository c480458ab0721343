"""The undocumented parts of Flower that the client relies on are still what they were."""

import inspect
import os
import subprocess
import sys

import pytest
from flwr.supercore.error.base import ApiErrorCode

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


def test_a_supernode_that_is_refused_prints_its_code():
    code = f"[code: {ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED.value}]"

    assert code == compat.ACTIVATION_REFUSED, "the code of a refused SuperNode has changed: see ACTIVATION_REFUSED"
    assert flower_source.says('f"[code: {'), "a SuperNode prints its error code otherwise now: see ACTIVATION_REFUSED"
