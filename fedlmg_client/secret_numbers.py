"""Random numbers of private training, which nobody can draw again without the client's secret of 256 bits.

The bits are AES-256's in counter mode (NIST SP 800-38A), for each purpose under a key of its own. A Gaussian is half
the sum of four that Box and Muller's method makes of uniform numbers with 53 bits, all in float64: from the last bits
of one alone an attacker could tell which sums of gradient and noise were possible (Holohan and Braghin, 2021, section
5.1, arXiv 2107.10138; Opacus's secure mode does the same).
"""

import hmac
import json
import math
import secrets
from pathlib import Path

import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from common.storage.atomic import write_secret

KEY_BYTES = 32
BITS = 53
"""Of a uniform number: all that float64 holds between 1/2 and 1."""
SUMMANDS = 4
PAIRS = 2**15
"""Gaussians are made in pairs, so many at once."""


class SecretNumbers:
    """A stream of random numbers; the same secret and the same labels give the same stream."""

    def __init__(self, secret: bytes, *labels: str | int) -> None:
        key = hmac.digest(secret, json.dumps(labels).encode(), "sha256")
        self._cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def uniform(self, count: int) -> torch.Tensor:
        """Multiples of 2**-53 in [0, 1), float64 (count,)."""
        words = torch.empty(count, dtype=torch.int64)
        self._cipher.update_into(bytes(8 * count), words.numpy().data.cast("B"))
        return words.bitwise_right_shift_(64 - BITS).bitwise_and_(2**BITS - 1).double().mul_(2.0**-BITS)

    def normal(self, count: int) -> torch.Tensor:
        """Standard Gaussians, float64 (count,)."""
        half = -(-count // 2)
        found = torch.empty(2, half, dtype=torch.float64)
        for first in range(0, half, PAIRS):
            part = found[:, first : first + PAIRS]
            radii, angles = self.uniform(2 * SUMMANDS * part.shape[1]).view(2, SUMMANDS, part.shape[1])
            radii = radii.neg_().add_(1).log_().mul_(-2).sqrt_()  # Of 1 - u, which is never 0.
            angles = angles.mul_(2 * math.pi)
            part[0] = (radii * angles.cos()).sum(0)
            part[1] = (radii * angles.sin()).sum(0)
        return found.flatten()[:count].div_(math.sqrt(SUMMANDS))


def load_or_create_secret(file: Path) -> bytes:
    """256 bits of the operating system that only this client knows; they stay in a file until they are removed."""
    if not file.exists():
        write_secret(file, secrets.token_bytes(KEY_BYTES))
    return file.read_bytes()
