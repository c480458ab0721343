"""What a client's SuperNode does when the server cannot answer."""

from pathlib import Path

import httpx
import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supernode.fleet_http_client import FleetHttpClient

from fedlmg_client import supernode
from fedlmg_client.status import Status
from tests.common.http_server import answering


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Status:
    """The status that this process's requests tell of."""
    monkeypatch.setattr(ProtobufClient, "_unary_unary", ProtobufClient._unary_unary)
    monkeypatch.setattr(supernode, "WAITS_SECONDS", (0.01, 0.01))
    status = Status(tmp_path)
    supernode.watch_requests(tmp_path)
    return status


def push(address: str) -> None:
    with FleetHttpClient.from_server_address(address, True, None, interceptors=[]) as client:
        client.PushObject(PushObjectRequest(object_content=b"weights"))


def test_a_piece_of_the_upload_that_the_server_failed_at_is_sent_again(watched: Status):
    with answering(500, 500, 200) as (address, asked):
        push(address)

    assert asked == 3 * ["/v1/fleet/push-object"]
    assert "cannot answer" not in watched.poll()


def test_a_server_that_keeps_failing_is_given_up_and_said_so(watched: Status):
    with answering(500) as (address, asked), pytest.raises(httpx.HTTPStatusError, match="500"):
        push(address)

    assert len(asked) == 3
    assert "the server is busy (HTTP 500)" in watched.poll()


def test_a_refusal_is_not_asked_again(watched: Status):
    with answering(403) as (address, asked), pytest.raises(httpx.HTTPStatusError, match="403"):
        push(address)

    assert len(asked) == 1
    assert "is not a FedLMG server, or does not let this client in (HTTP 403)" in watched.poll()
