"""TLS certificates: the deployment's own certificate authority, and the server's certificate."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.network import LOOPBACK, is_address
from fedlmg_server.deployment.settings import DeploymentError

AUTHORITY_DAYS, SERVER_DAYS = 3650, 825


def make_authority(days: int = AUTHORITY_DAYS) -> tuple[bytes, bytes]:
    """Make a certificate authority: its certificate and private key (P-256), each as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedLMG authority")])
    builder = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return _pem(builder.sign(key, hashes.SHA256())), _key_pem(key)


def make_server_certificate(
    authority: bytes, authority_key: bytes, hosts: Sequence[str], days: int = SERVER_DAYS
) -> tuple[bytes, bytes]:
    """Make a server certificate for these names and addresses, and for loopback: certificate and key, each as PEM.

    Parameters
    ----------
    days: how long the certificate is valid; with a negative number it has expired already.
    """
    issuer = x509.load_pem_x509_certificate(authority)
    issuer_key = serialization.load_pem_private_key(authority_key, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key must be one of an elliptic curve, as `fedlmg server init` makes it")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]
    builder = (
        _builder(subject, issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return _pem(builder.sign(issuer_key, hashes.SHA256())), _key_pem(key)


def days_until_expiry(certificate: Path) -> float:
    """Days until the certificate expires; negative if it has expired.

    Raises
    ------
    DeploymentError: the file holds no certificate.
    """
    try:
        end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError:
        raise DeploymentError(
            f"{certificate} holds no certificate: make a new one with `fedlmg server renew`"
        ) from None
    return (end - datetime.now(UTC)) / timedelta(days=1)


def is_host(text: str) -> bool:
    """Whether `text` is an IP address or a DNS name, which a certificate can contain."""
    labels = text.rstrip(".").split(".")
    return is_address(text) or (
        len(text) <= 253
        and not labels[-1].isdigit()
        and all(
            0 < len(label) <= 63 and label.isascii() and label.replace("-", "").isalnum() and label.strip("-") == label
            for label in labels
        )
    )


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int):
    # Validity begins an hour ago, for clients whose clock is behind.
    start = datetime.now(UTC) - timedelta(hours=1)
    end = datetime.now(UTC) + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(start, end - timedelta(days=1)))
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**(dict.fromkeys(names, False) | allowed))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
