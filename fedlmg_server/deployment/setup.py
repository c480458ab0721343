"""`fedlmg server init` and `renew`: write the keys, certificates and configuration files of a server."""

import os
from collections.abc import Sequence
from pathlib import Path

from common.telling import first_line
from fedlmg_server.deployment import certificates, proxy
from fedlmg_server.deployment.settings import CONNECTION, Deployment, DeploymentError, write_private

SECRET_BYTES = 48


def create_deployment(root: Path, hosts: Sequence[str], port: int, superlink_port: int) -> Deployment:
    """Create a deployment in `root`. `server.json` is written last, so an interrupted call can be repeated.

    Raises
    ------
    DeploymentError: `root` holds a deployment already, or a host or a port is not valid.
    """
    root = root.expanduser().resolve()
    if (root / "server.json").exists():
        raise DeploymentError(
            f"{root} holds a server already, so nothing was changed: `fedlmg server renew` makes a new certificate"
        )
    check_hosts(hosts)
    for number in (port, superlink_port):
        if not 0 < number < 65536:
            raise DeploymentError(f"a port must be between 1 and 65535, got {number}: choose another")
    if port == superlink_port:
        raise DeploymentError(f"--port and --superlink-port must differ, but both are {port}: choose another")
    if any(character in str(root) for character in '"\\$;\n'):
        raise DeploymentError(
            f"nginx needs a path without quotes, backslashes, $ and ;, got {root}: choose another folder"
        )
    deployment = Deployment(root, tuple(hosts), port, superlink_port)
    root.mkdir(parents=True, exist_ok=True)
    deployment.logs.mkdir(exist_ok=True)
    # Only the operator may read what clients uploaded.
    deployment.runs.mkdir(mode=0o700, exist_ok=True)
    authority, authority_key = certificates.make_authority()
    deployment.authority.write_bytes(authority)
    write_private(deployment.authority_key, authority_key)
    write_private(deployment.superexec_secret, os.urandom(SECRET_BYTES))
    write_certificate(deployment)
    write_flower_configuration(deployment)
    proxy.write_configuration(deployment)
    deployment.save()
    return deployment


def renew_certificate(deployment: Deployment, hosts: Sequence[str]) -> Deployment:
    """Make a new server certificate, signed by the same authority, for `hosts`, or for the old hosts if there are none.

    Raises
    ------
    DeploymentError: a host is not valid, or the authority's key cannot be read.
    """
    check_hosts(hosts or deployment.hosts)
    renewed = Deployment(deployment.root, tuple(hosts) or deployment.hosts, deployment.port, deployment.superlink_port)
    write_certificate(renewed)
    renewed.save()
    return renewed


def check_hosts(hosts: Sequence[str]) -> None:
    if bad := [host for host in hosts if not certificates.is_host(host)]:
        raise DeploymentError(
            f"--host must be a DNS name or an IP address, got {bad[0]!r}: name the address that clients use"
        )


def write_certificate(deployment: Deployment, days: int = certificates.SERVER_DAYS) -> None:
    try:
        authority_key = deployment.authority_key.read_bytes()
    except OSError as error:
        raise DeploymentError(
            f"the certificate authority's key {deployment.authority_key} cannot be read, so restore it: {error}"
        ) from None
    try:
        certificate, key = certificates.make_server_certificate(
            deployment.authority.read_bytes(), authority_key, deployment.hosts, days
        )
    except (ValueError, TypeError) as error:
        raise DeploymentError(
            f"{deployment.authority} and {deployment.authority_key} are not the authority's certificate and key, so "
            f"restore them: {first_line(error)}"
        ) from None
    write_private(deployment.certificate_key, key)
    deployment.certificate.write_bytes(certificate)


def write_flower_configuration(deployment: Deployment) -> None:
    """Write the configuration by which Flower's commands find the SuperLink if `FLWR_HOME` names its folder."""
    file = deployment.root / "flower" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{deployment.superlink_port}"\nroot-certificates = "{deployment.authority}"\n',
        encoding="utf-8",
    )
