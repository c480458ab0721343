"""Where the server is, and the files with which a client connects: checked as Flower will, before anything starts."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.network import SERVER_PORT, find_unusable_proxy, is_address, join_address


class ServerError(ValueError):
    """The server cannot be reached with what the user gave; the message is one sentence."""


@dataclass(frozen=True)
class Server:
    """Where the server is, and how to connect to it.

    address: `HOST:PORT`; ca: certificate file of the server's authority; key: private key file of this client.
    With `insecure` the connection is without TLS, and there is neither `ca` nor `key`.
    """

    address: str
    ca: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def to_flags(self) -> list[str]:
        """The connection's flags for `flower-supernode`."""
        flags = ["--superlink", self.address]
        if self.insecure:
            return [*flags, "--insecure"]
        flags += ["--root-certificates", str(self.ca)] if self.ca else []
        return flags + (["--auth-supernode-private-key", str(self.key)] if self.key else [])

    def check(self) -> None:
        """
        Raises
        ------
        ServerError: with this key, certificate file or proxy Flower could never connect.
        """
        if self.insecure and (self.key or self.ca):
            raise ServerError(f"{'--key' if self.key else '--ca'} works with TLS only: leave out --insecure")
        if self.ca:
            _check_authority(self.ca)
        if self.key:
            _check_key(self.key)
        if sentence := find_unusable_proxy():
            raise ServerError(sentence)


def read_address(host: str) -> str:
    """`HOST:PORT` from `HOST` or `HOST:PORT`; the port is 9443 if `host` names none. HOST may be an IPv6 address.

    Raises
    ------
    ServerError: `host` is neither; a URL, for example.
    """
    expected = f"the server must be given as HOST or HOST:PORT, got '{host}'"
    if "/" in host or "@" in host:
        raise ServerError(f"{expected}: leave out what stands before the host's name, such as https://, and after it")
    if is_address(host.strip("[]")):
        return join_address(host.strip("[]"), SERVER_PORT)
    name, colon, port = host.rpartition(":")
    name = name if colon else host
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ServerError(f"{expected}: a port is a number between 1 and 65535")
    if not is_address(name) and not _is_name(name):
        raise ServerError(f"{expected}: HOST is a DNS name or an IP address")
    return join_address(name, int(port) if colon else SERVER_PORT)


def _is_name(text: str) -> bool:
    """Whether `text` can be a host's name; with letters of any script, and `_`, which local networks allow."""
    try:
        labels = text.removesuffix(".").encode("idna").decode("ascii").split(".")
    except UnicodeError:
        return False
    is_plain = all(label.replace("-", "").replace("_", "").isalnum() for label in labels)
    return is_plain and len(text) <= 253 and not labels[-1].isdigit()


def _check_authority(path: Path) -> None:
    from cryptography import x509

    remedy = "give the file ca.crt that the server's operator sent"
    try:
        content = path.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
        certificates = x509.load_pem_x509_certificates(content)
    except OSError as error:
        # An error of TLS is an OSError too.
        reason = "it holds none" if isinstance(error, ssl.SSLError) else error.strerror
        raise ServerError(
            f"--ca must be a file with a certificate as PEM text, got {path} ({reason}): {remedy}"
        ) from None
    except ValueError:
        raise ServerError(f"--ca must be a file with a certificate as PEM text, got {path}: {remedy}") from None
    roots = [each for each in certificates if each.issuer == each.subject]
    if not roots:
        raise ServerError(
            f"--ca must be the certificate of the server's authority, but {path} is one that an authority signed: "
            f"{remedy}"
        )
    now = datetime.now(UTC)
    if not any(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in roots):
        raise ServerError(
            f"--ca is not valid at {now:%Y-%m-%d %H:%M} UTC, the time of this machine's clock, but from "
            f"{roots[0].not_valid_before_utc:%Y-%m-%d} to {roots[0].not_valid_after_utc:%Y-%m-%d}: correct the clock, "
            "or ask the server's operator for a new ca.crt"
        )


def _check_key(path: Path) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    remedy = "make one with `fedlmg-client keygen`, and send its .pub file to the server's operator"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ServerError(f"--key must be a file that can be read, got {path} ({error.strerror}): correct it") from None
    if b"PRIVATE KEY" not in content:
        raise ServerError(f"{path} is not a private key: give the file without .pub that `fedlmg-client keygen` made")
    try:
        key = load_ssh_private_key(content, None)
    except TypeError:
        raise ServerError(f"--key must be a key without a passphrase, but {path} has one: {remedy}") from None
    except (ValueError, UnsupportedAlgorithm):
        found = "is in another format (PEM)" if b"OPENSSH" not in content else "cannot be read"
        raise ServerError(f"--key must be a private key in OpenSSH's format, but {path} {found}: {remedy}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        kind = type(key).__name__.strip("_").removesuffix("PrivateKey")
        raise ServerError(f"--key must be a key of an elliptic curve (ECDSA), but {path} is one of {kind}: {remedy}")
