"""`fedlmg server init` and `renew`: every key, certificate and configuration file of a deployment."""

import os
from collections.abc import Sequence
from pathlib import Path

from fedlmg_server.deployment import certificates, proxy
from fedlmg_server.deployment.settings import CONNECTION, Deployment, DeploymentError, write_private

SECRET_BYTES = 48


def initialise(root: Path, hosts: Sequence[str], port: int, superlink_port: int) -> Deployment:
    """A new deployment in `root`; `server.json` is written last, so that an interrupted one is made again.

    Raises
    ------
    DeploymentError: `root` is a deployment already, a host is no name, or a port is none.
    """
    root = root.expanduser().resolve()
    if (root / "server.json").exists():
        raise DeploymentError(f"{root} is a server already: nothing was changed (`fedlmg server renew` renews it)")
    check_hosts(hosts)
    for number in (port, superlink_port):
        if not 0 < number < 65536:
            raise DeploymentError(f"{number} is no port: choose one between 1 and 65535")
    if port == superlink_port:
        raise DeploymentError(f"clients and SuperLink cannot share port {port}: choose another --superlink-port")
    if any(character in str(root) for character in '"\\$;\n'):
        raise DeploymentError(f"nginx cannot read the path {root}: choose one without quotes, $ and ;")
    deployment = Deployment(root, tuple(hosts), port, superlink_port)
    root.mkdir(parents=True, exist_ok=True)
    deployment.logs.mkdir(exist_ok=True)
    # What clients uploaded is the operator's alone.
    deployment.runs.mkdir(mode=0o700, exist_ok=True)
    authority, authority_key = certificates.new_authority()
    deployment.authority.write_bytes(authority)
    write_private(deployment.authority_key, authority_key)
    write_private(deployment.superexec_secret, os.urandom(SECRET_BYTES))
    write_certificate(deployment)
    write_flower_configuration(deployment)
    proxy.write_configuration(deployment)
    deployment.save()
    return deployment


def renew(deployment: Deployment, hosts: Sequence[str]) -> Deployment:
    """A new server certificate of the same authority, for these hosts or those it had; clients notice nothing.

    Raises
    ------
    DeploymentError: a host is no name, or the authority's key is not here.
    """
    check_hosts(hosts or deployment.hosts)
    renewed = Deployment(deployment.root, tuple(hosts) or deployment.hosts, deployment.port, deployment.superlink_port)
    write_certificate(renewed)
    renewed.save()
    return renewed


def check_hosts(hosts: Sequence[str]) -> None:
    if bad := [host for host in hosts if not certificates.is_host(host)]:
        raise DeploymentError(f"{bad[0]!r} is neither a DNS name nor an IP address: say how clients reach this machine")


def write_certificate(deployment: Deployment, days: int = certificates.SERVER_DAYS) -> None:
    try:
        authority_key = deployment.authority_key.read_bytes()
    except OSError as error:
        raise DeploymentError(f"the authority's key {deployment.authority_key} cannot be read: {error}") from None
    certificate, key = certificates.new_server_certificate(
        deployment.authority.read_bytes(), authority_key, deployment.hosts, days
    )
    write_private(deployment.certificate_key, key)
    deployment.certificate.write_bytes(certificate)


def write_flower_configuration(deployment: Deployment) -> None:
    """Flower's own commands find the SuperLink with `FLWR_HOME` set to this folder's `flower`."""
    file = deployment.root / "flower" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{deployment.superlink_port}"\nroot-certificates = "{deployment.authority}"\n'
    )
