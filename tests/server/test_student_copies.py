"""A copy of the student in an upload passes what the upload's own classifier does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config import Config
from common.manifest import StudentCopy
from common.upload import Upload, weights_digest
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from tests.conftest import make_upload
from tests.manifests import saying

Spoil = Callable[[Upload], Upload]


@pytest.fixture(scope="module")
def fit() -> Upload:
    """A client with a net of its own and a copy of the student."""
    own, copy = (make_upload("site-a", ["cat", "dog"], name) for name in ("small_mlp", "small_resnet"))
    return with_copy(own, copy.arrays)


def with_copy(upload: Upload, arrays: dict[str, torch.Tensor], **changes: object) -> Upload:
    """The same upload with these weights for its copy, signed."""
    said = {"architecture": "small_resnet", "class_names": upload.class_names, "sha256": weights_digest(arrays)}
    said |= {"start": "", "validation_accuracy": 0.5}
    return saying(replace(upload, student_copy=arrays), student_copy=StudentCopy(**{**said, **changes}))


def weights(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(upload: Upload) -> Upload:
        changed = change(upload.student_copy.get(key, torch.zeros(1)))
        return with_copy(upload, {**upload.student_copy, key: changed})

    return spoil


def test_a_fit_copy_passes_and_survives_the_disk(fit: Upload, tmp_path: Path):
    fit.save(tmp_path)

    check_upload(Upload.load(tmp_path), Config())


def test_a_start_that_no_server_made_is_no_reason_to_refuse(fit: Upload):
    check_upload(saying(with_copy(fit, fit.student_copy, start="none of yours"), start="nor this"), Config())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (weights("head.bias", lambda tensor: tensor[:1]), "must have shape"),
        (weights("another", lambda tensor: tensor), "do not match its architecture, first at 'another'"),
        (weights("head.bias", lambda tensor: tensor.double()), "must have dtype"),
        (weights("head.bias", lambda tensor: tensor * torch.nan), "all values must be finite"),
        (weights("head.weight", lambda tensor: tensor + 1e5), "the root mean square must be at most"),
        (lambda upload: with_copy(upload, upload.student_copy, sha256="0"), "checksum mismatch"),
        (weights("head.weight", torch.zeros_like), "the same output for every image"),
        (lambda upload: with_copy(upload, {}), "do not match its architecture"),
    ],
)
def test_a_copy_that_is_unfit_is_refused(fit: Upload, spoil: Spoil, reason: str):
    with pytest.raises(UploadError, match=f"client 'site-a': its copy of the student: .*{reason}"):
        check_upload(spoil(fit), Config())


def test_a_copy_of_another_architecture_is_refused(fit: Upload):
    other = with_copy(fit, fit.student_copy, architecture="small_vit")

    with pytest.raises(UploadError, match="must be a 'small_resnet', got 'small_vit'"):
        check_upload(other, Config())


def test_a_copy_that_the_manifest_does_not_name_is_refused(fit: Upload):
    with pytest.raises(UploadError, match="a copy of the student that its manifest does not name"):
        check_upload(saying(fit, student_copy=None), Config())


def test_an_upload_of_no_class_is_refused(fit: Upload):
    with pytest.raises(UploadError, match="counts no training image of any class"):
        check_upload(saying(fit, class_counts=[0, 0]), Config())
