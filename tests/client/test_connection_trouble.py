"""Each cause of a failed connection has its own sentence, which never blames another one; met over real sockets."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from common.network import find_free_port
from fedlmg_client.connection_trouble import explain_answer, explain_transport_error
from fedlmg_server.deployment import certificates
from tests.common.http_server import answering

AUTHORITY, AUTHORITY_KEY = certificates.make_authority()
HOST = "127.0.0.1"


def make_tls(folder: Path, *hosts: str, days: int = 9) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for these hosts."""
    for file, content in zip(
        ("crt", "key"), certificates.make_server_certificate(AUTHORITY, AUTHORITY_KEY, hosts, days), strict=True
    ):
        (folder / file).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


def connect(url: str, authority: bytes = AUTHORITY, proxy: str | None = None) -> str:
    """What a client is told that cannot connect."""
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.load_verify_locations(cadata=authority.decode())
    with httpx.Client(verify=trusted, trust_env=False, proxy=proxy) as client:
        with pytest.raises(httpx.TransportError) as failure:
            client.post(url)
        return explain_transport_error(failure.value)


def answer_of(status: int, **how: str) -> str:
    """What a client is told whom the server answers so."""
    with answering(status, **how) as (address, _):
        return explain_answer(httpx.post(f"http://{address}/v1/fleet/x", trust_env=False, verify=False))


def test_a_certificate_for_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(certificates, "LOOPBACK", ())
    with answering(200, tls=make_tls(tmp_path, "10.1.1.1")) as (address, _):
        sentence = connect(f"https://{address}")

    assert f"is not for {address}, but for another name or address" in sentence


def test_a_certificate_for_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(certificates, "LOOPBACK", ())
    with answering(200, tls=make_tls(tmp_path, "gpu.example.org")) as (address, _):
        port = address.rpartition(":")[2]
        sentence = connect(f"https://localhost:{port}")

    assert f"is not for localhost:{port}, but for another name" in sentence


def test_a_certificate_of_another_authority(tmp_path: Path):
    with answering(200, tls=make_tls(tmp_path, HOST)) as (address, _):
        sentence = connect(f"https://{address}", certificates.make_authority()[0])

    assert "not signed by the authority of the `--ca` file" in sentence
    assert "expired" not in sentence


def test_an_expired_certificate(tmp_path: Path):
    with answering(200, tls=make_tls(tmp_path, HOST, days=-1)) as (address, _):
        sentence = connect(f"https://{address}")

    assert "has expired, if it is 20" in sentence
    assert "fedlmg server renew" in sentence


def test_a_certificate_that_is_not_valid_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ahead = datetime.now(UTC) + timedelta(days=30)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", type("Clock", (), {"now": staticmethod(lambda _: ahead)}))
        context = make_tls(tmp_path, HOST)
    with answering(200, tls=context) as (address, _):
        sentence = connect(f"https://{address}")

    assert "is not valid yet" in sentence
    assert "clock" in sentence


def test_a_server_without_tls():
    with answering(200) as (address, _):
        sentence = connect(f"https://{address}")

    assert f"what answers at {address} does not speak TLS" in sentence


def test_nothing_that_listens():
    port = find_free_port()

    assert f"nothing listens at {HOST}:{port}" in connect(f"https://{HOST}:{port}")


def test_a_name_without_an_address():
    assert "no address is known for nosuch.invalid: correct HOST" in connect("https://nosuch.invalid:9443")


def test_a_proxy_that_lets_nobody_through():
    with answering(403) as (proxy, _):
        sentence = connect("https://gpu.example.org:9443", proxy=f"http://user:secret@{proxy}")

    assert "the proxy of this machine does not let it reach gpu.example.org:9443" in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize(("minutes", "words"), [(-15, "15 minutes ahead of"), (15, "15 minutes behind")])
def test_a_clock_that_is_off_is_not_taken_for_a_wrong_key(minutes: int, words: str):
    told = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)

    sentence = answer_of(401, date=told)

    assert f"this machine's clock is {words} the server's" in sentence
    assert "registered" not in sentence


@pytest.mark.parametrize("seconds", [0, 200])
def test_a_clock_that_the_server_accepts_is_not_blamed(seconds: int):
    told = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    sentence = answer_of(401, date=told)

    assert "whether this client's key is registered" in sentence
    assert "clock" not in sentence


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (412, json.dumps({"code": 2001, "detail": "x"}), "join with --key and --name"),
        (412, json.dumps({"code": 2004, "detail": "x"}), "has not registered this client's key"),
        (400, "The plain HTTP request was sent to HTTPS port", "leave out --insecure"),
        (404, "<html>", "is not a FedLMG server"),
        (407, "", "asks for a user name and password"),
        (502, "", "the server is busy (HTTP 502)"),
        (400, json.dumps({"code": 1003}), "rejects this client (HTTP 400, code 1003)"),
    ],
)
def test_an_answer_is_told_by_its_cause(status: int, text: str, words: str):
    assert words in answer_of(status, text=text)


def test_the_end_of_a_run_is_no_trouble():
    assert answer_of(403, text=json.dumps({"code": 2007})) == ""
