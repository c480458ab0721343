"""An upload survives the wire and the disk unchanged."""

from pathlib import Path

import pytest
import torch

from common.models import architectures
from common.models.feature_statistics import gather, to_tensors
from common.upload import Upload, is_whole, to_wire, weights_digest
from tests.manifests import make_manifest


@pytest.fixture(params=list(architectures.SMALL))
def upload(request: pytest.FixtureRequest) -> Upload:
    torch.manual_seed(0)
    model = architectures.build(request.param, 3)
    arrays = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    manifest = make_manifest("Klinik Süd", "abc", architecture=request.param, sha256=weights_digest(arrays))
    return Upload(arrays, gather(model, [torch.rand(2, 3, 32, 32)]), manifest)


def assert_same(left: Upload, right: Upload) -> None:
    """To the bit, types included."""
    assert left.manifest == right.manifest
    assert left.arrays
    assert left.statistics
    torch.testing.assert_close(left.arrays, right.arrays, rtol=0, atol=0)
    torch.testing.assert_close(to_tensors(left.statistics), to_tensors(right.statistics), rtol=0, atol=0)


def test_record_dict_round_trip(upload: Upload):
    assert_same(Upload.from_records(upload.to_records()), upload)


def test_folder_round_trip(upload: Upload, tmp_path: Path):
    upload.save(tmp_path)

    assert_same(Upload.load(tmp_path), upload)


def test_classifier_has_the_uploaded_weights(upload: Upload):
    classifier = upload.classifier()

    restored = dict(classifier.state_dict())
    torch.testing.assert_close(restored, upload.arrays, rtol=0, atol=0, check_dtype=False)


def test_folder_without_a_manifest_is_not_whole(upload: Upload, tmp_path: Path):
    upload.save(tmp_path)
    (tmp_path / "manifest.json").unlink()

    assert not is_whole(tmp_path)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(65_504.0, torch.float16), (65_519.0, torch.float16), (65_520.0, torch.float32), (-70_000.0, torch.float32)],
)
def test_what_float16_cannot_hold_travels_in_float32(value: float, dtype: torch.dtype):
    sent = to_wire(torch.tensor([1.0, value]))

    assert sent.dtype == dtype
    torch.testing.assert_close(sent[1].item(), value, rtol=1e-3, atol=0)
