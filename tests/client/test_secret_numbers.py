"""Random numbers of private training: their bits, their distribution, and the file of their secret."""

import hmac
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from common.storage import atomic
from fedlmg_client.secret_numbers import SecretNumbers, load_or_create_secret

ROOT = Path(__file__).parents[2]


def test_a_uniform_number_has_the_53_upper_bits_of_a_word_of_aes_256():
    key = hmac.digest(b"secret", json.dumps(["a", 1]).encode(), "sha256")
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    blocks = b"".join(encryptor.update(number.to_bytes(16, "big")) for number in range(3))
    words = [int.from_bytes(blocks[start : start + 8], "little") for start in range(0, 48, 8)]

    numbers = SecretNumbers(b"secret", "a", 1).uniform(6)

    assert numbers.tolist() == [(word >> 11) / 2**53 for word in words]


def test_gaussians_are_gaussian():
    numbers = SecretNumbers(b"secret").normal(400_001).sort().values

    expected = torch.special.ndtr(numbers)
    steps = torch.arange(1, len(numbers) + 1, dtype=torch.float64) / len(numbers)
    assert (expected - steps).abs().max() < 1.95 / len(numbers) ** 0.5  # Kolmogorov and Smirnov, 0.1 %.
    assert abs(numbers.pow(4).mean().item() - 3) < 0.1


def test_the_two_gaussians_of_a_pair_and_neighbours_have_nothing_in_common():
    numbers = SecretNumbers(b"secret").normal(200_000)

    pairs = (numbers[:100_000], numbers[100_000:]), (numbers[:-1], numbers[1:])
    assert [abs(torch.corrcoef(torch.stack(pair))[0, 1].item()) < 0.01 for pair in pairs] == [True, True]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 2**16 + 1])
def test_any_number_of_gaussians_can_be_drawn(count: int):
    numbers = SecretNumbers(b"secret").normal(count)

    assert numbers.shape == (count,)
    assert numbers.isfinite().all()


def test_a_stream_goes_on():
    numbers = SecretNumbers(b"secret")

    assert not torch.equal(numbers.normal(8), numbers.normal(8))


@pytest.fixture
def wide_rights() -> Iterator[None]:
    """A process whose new files everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_secret_never_has_wider_rights_and_stays_the_same(
    wide_rights: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rights, replace = [], os.replace

    def seen(temporary: Path, path: Path) -> None:
        rights.append(temporary.stat().st_mode & 0o777)
        replace(temporary, path)

    monkeypatch.setattr(atomic.os, "replace", seen)

    first, second = (load_or_create_secret(tmp_path / "noise.key") for _ in range(2))

    assert rights == [0o600]
    assert (first, len(first)) == (second, 32)


def test_two_secrets_differ(tmp_path: Path):
    assert load_or_create_secret(tmp_path / "a") != load_or_create_secret(tmp_path / "b")


def test_no_file_gets_its_rights_after_it_was_written():
    packages = [path for name in ("common", "fedlmg_client", "fedlmg_server") for path in (ROOT / name).rglob("*.py")]

    assert [path for path in packages if "chmod(" in path.read_text()] == []
