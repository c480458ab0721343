"""The key pair that identifies a client to a server: ECDSA P-384 in OpenSSH's format."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def generate_key_pair(path: Path) -> Path:
    """Write a private key to `path`, readable by its owner only, and the public key beside it.

    Returns the path of the public key.

    Raises
    ------
    FileExistsError: one of the two files exists already; nothing is written.
    """
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if file.exists():
            raise FileExistsError(f"{file} exists already, and a key is never overwritten: name another file")
    key = ec.generate_private_key(ec.SECP384R1())
    encoding = serialization.Encoding
    private_bytes = key.private_bytes(encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public_bytes = key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(private_bytes)
    public.write_bytes(public_bytes + f" {path.name}\n".encode())
    return public
