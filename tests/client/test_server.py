"""Host, certificate file, key and proxy are judged before a client connects, by the rules of Flower."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner

from fedlmg_client import cli, join, keys
from fedlmg_client.server import Server, ServerError, read_address
from fedlmg_client.status import ConnectionChanged, append_event
from fedlmg_server.deployment import certificates

AUTHORITY, AUTHORITY_KEY = certificates.make_authority()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("gpu.example.org", "gpu.example.org:9443"),
        ("10.0.0.1:8000", "10.0.0.1:8000"),
        ("::1", "[::1]:9443"),
        ("2001:db8::7", "[2001:db8::7]:9443"),
        ("[2001:db8::7]", "[2001:db8::7]:9443"),
        ("[2001:db8::7]:8000", "[2001:db8::7]:8000"),
        ("gpu_server", "gpu_server:9443"),
        ("bücher.example", "bücher.example:9443"),
    ],
)
def test_the_port_is_9443_unless_named(host: str, address: str):
    assert read_address(host) == address


@pytest.mark.parametrize(
    "host",
    [
        *("https://gpu.example.org", "gpu.example.org/fedlmg", "user@gpu", "gpu:0", "gpu:99999", "gpu:https", "gpu:"),
        *("", "10.0.0.256", "10.0.0", "fe80::1%eth0", "a b", "-", "gpu..org", "*.example.org", "[gpu", "::zz"),
    ],
)
def test_a_host_that_is_none_is_refused(host: str):
    with pytest.raises(ServerError, match="must be given as HOST or HOST:PORT"):
        read_address(host)


def write(folder: Path, content: bytes) -> Path:
    (folder / "file").write_bytes(content)
    return folder / "file"


def write_key(folder: Path, key: object, form: PrivateFormat, password: bytes = b"") -> Path:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return write(folder, key.private_bytes(Encoding.PEM, form, encryption))  # type: ignore[attr-defined]


P384, RSA = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)
OPENSSH, PKCS8, TRADITIONAL = PrivateFormat.OpenSSH, PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
# Made for this test by ssh-keygen, because cryptography cannot write one without another package.
WITH_PASSPHRASE = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABB3IyVua8
wGMuOqL0Fkw/o3AAAAEAAAAAEAAABoAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlz
dHAyNTYAAABBBBdFtM70FmHKvNSZ32xnHHOLpoJy3i+1RRWW3kd8MhSiEtplht/Zr0mbD1
vA8XZl2YtB3LsM79k5knlEjrME8LYAAACghYcu+TIQL+hS1Si1bahersQckjqpEmzAFL83
3puqAJFhA41JeJq6ggs3lf1lgCCtjyb85IiSBWemKvxdxcXY1b/DyIBOTRr/dNzwB6sXak
BQ/a6Qyvs2QwelUQFlY+owJb7Yvv6MhZZz/jMq3R97Mt5/MCsUeg4RuWUWHyyyIPL0rCej
9M9a2Pus1ZyHEzV/OqpqtPmAHySGk9A/49gZPg==
-----END OPENSSH PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: write_key(folder, P384, PKCS8), r"another format \(PEM\)"),
        (lambda folder: write_key(folder, P384, TRADITIONAL), r"another format \(PEM\)"),
        (lambda folder: write_key(folder, P384, PKCS8, b"x"), r"another format \(PEM\)"),
        (lambda folder: write_key(folder, RSA, OPENSSH), "but .* is one of RSA"),
        (lambda folder: write_key(folder, ed25519.Ed25519PrivateKey.generate(), OPENSSH), "but .* is one of Ed25519"),
        (lambda folder: write(folder, WITH_PASSPHRASE.encode()), "without a passphrase"),
        (lambda folder: write_key(folder, P384, OPENSSH).with_name("none"), "No such file"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: write(folder, b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"), "cannot be read"),
        (lambda folder: keys.generate_key_pair(folder / "key"), "is not a private key: give the file without .pub"),
    ],
)
def test_a_key_that_flower_does_not_take_is_refused(tmp_path: Path, make: Callable[[Path], Path], words: str):
    with pytest.raises(ServerError, match=words):
        Server("localhost:1", key=make(tmp_path)).check()


def test_a_key_that_openssh_makes_is_taken(tmp_path: Path):
    Server("localhost:1", key=write_key(tmp_path, ec.generate_private_key(ec.SECP256R1()), OPENSSH)).check()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: write(folder, b""), "with a certificate as PEM text"),
        (lambda folder: write(folder, b"\x30\x82\xff"), "with a certificate as PEM text"),
        (lambda folder: write(folder, AUTHORITY_KEY), "with a certificate as PEM text"),
        (lambda folder: folder, "Is a directory"),
        (
            lambda folder: write(folder, certificates.make_server_certificate(AUTHORITY, AUTHORITY_KEY, ["a.org"])[0]),
            "is one that an authority signed",
        ),
        (lambda folder: write(folder, certificates.make_authority(days=-1)[0]), "--ca is not valid at"),
    ],
)
def test_a_certificate_file_that_flower_does_not_take_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], words: str
):
    with pytest.raises(ServerError, match=words):
        Server("localhost:1", ca=make(tmp_path)).check()


def test_the_authority_of_a_server_is_taken(tmp_path: Path):
    Server("localhost:1", ca=write(tmp_path, AUTHORITY)).check()


@pytest.mark.parametrize("given", [{"key": Path("k")}, {"ca": Path("c")}])
def test_files_for_tls_need_tls(given: dict[str, Path]):
    with pytest.raises(ServerError, match="works with TLS only: leave out --insecure"):
        Server("localhost:1", insecure=True, **given).check()


@pytest.mark.parametrize("url", ["socks4://proxy:1080", "ftp://proxy"])
def test_a_proxy_that_flower_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("ALL_PROXY", url)

    with pytest.raises(ServerError, match=f"must be an HTTP proxy, such as http://proxy:3128, and is {url}"):
        Server("localhost:1").check()


def join_with(tmp_path: Path, *options: str) -> str:
    """What `join` says that ends with status 1."""
    (tmp_path / "images").mkdir()
    arguments = ["join", *options, "--data", str(tmp_path / "images"), "--cache", str(tmp_path / "cache")]

    result = CliRunner().invoke(cli.app, arguments)

    assert result.exit_code == 1, result.output
    assert not (tmp_path / "cache").exists()
    return result.output


def test_join_starts_nothing_with_a_url_for_a_host(tmp_path: Path):
    assert "leave out what stands before" in join_with(tmp_path, "https://gpu.example.org:9443")


def test_join_starts_nothing_with_a_key_of_openssl(tmp_path: Path):
    key = write_key(tmp_path, P384, PKCS8)

    assert "in another format (PEM)" in join_with(tmp_path, "localhost", "--key", str(key), "--name", "a")


def ending_with(text: str, seconds: float = 0.0) -> Callable[..., subprocess.Popen]:
    """In place of a SuperNode: a process that logs this and ends with status 1."""

    def start(server: Server, node_config: dict, cache: Path, log_file: Path) -> subprocess.Popen:
        starts.append(1)
        log_file.write_text(text)
        return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds}); raise SystemExit(1)"])

    starts: list[int] = []
    start.starts = starts  # type: ignore[attr-defined]
    return start


def test_join_stops_after_an_exit_that_another_start_does_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    start = ending_with(
        "ERROR : Exit Code: 606\nThe server needs version 2\n\nFor more information, visit: <https://x>\n"
    )
    monkeypatch.setattr(join, "_start", start)

    with pytest.raises(join.SuperNodeError, match="cannot run: The server needs version 2"):
        join.keep_joined(Server("localhost:1"), {}, tmp_path / "cache", cli.console)

    assert len(start.starts) == 1  # type: ignore[attr-defined]


def test_join_stops_when_its_supernode_ends_at_once_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    start = ending_with("Traceback (most recent call last):\nImportError: no module named x\n")
    monkeypatch.setattr(join, "_start", start)
    monkeypatch.setattr(join, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(join, "POLL_SECONDS", 0.01)

    with pytest.raises(join.SuperNodeError, match="cannot run: ImportError: no module named x"):
        join.keep_joined(Server("localhost:1"), {}, tmp_path / "cache", cli.console)

    assert len(start.starts) == join.MOST_QUICK_ENDS  # type: ignore[attr-defined]


def test_join_shows_the_cause_in_place_of_the_shutdown_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ended = ending_with("INFO : SuperNode terminated gracefully.\n")

    def start(*arguments: object) -> subprocess.Popen:
        if ended.starts:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        append_event(tmp_path / "cache", ConnectionChanged(reason="this machine's clock is 15 minutes behind"))
        return ended(*arguments)

    monkeypatch.setattr(join, "_start", start)
    monkeypatch.setattr(join, "RESTART_SECONDS", 0.01)

    join.keep_joined(Server("localhost:1"), {}, tmp_path / "cache", cli.console)

    shown = capsys.readouterr().out
    assert "this machine's clock is 15 minutes behind; starting again" in shown
    assert "gracefully" not in shown
