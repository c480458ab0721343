"""The key pair by which a server knows a client: ECDSA P-384, as OpenSSH writes it."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def generate(path: Path) -> Path:
    """Write the private key to `path`, for its owner alone, and the public one beside it; returns the latter's path.

    Raises
    ------
    FileExistsError: one of the two files is there already; nothing is written.
    """
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if file.exists():
            raise FileExistsError(f"{file} is there already: a key is never overwritten, name another file")
    key = ec.generate_private_key(ec.SECP384R1())
    encoding = serialization.Encoding
    private_bytes = key.private_bytes(encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public_bytes = key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private_bytes)
    public.write_bytes(public_bytes + f" {path.name}\n".encode())
    return public
