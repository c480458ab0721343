"""Unfit uploads are refused with a reason that names the client."""

import json
from dataclasses import replace

import pytest
import torch

from common.statistics import Moments
from common.upload import Upload, weights_digest
from common.workspace import Workspace
from fedlmg_server.admission import Refused, admit, check


def resigned(upload: Upload, **arrays: torch.Tensor) -> Upload:
    changed = {**upload.arrays, **arrays}
    return replace(upload, arrays=changed, manifest={**upload.manifest, "sha256": weights_digest(changed)})


def not_finite(upload: Upload) -> Upload:
    return resigned(upload, **{"head.bias": torch.full_like(upload.arrays["head.bias"], torch.nan)})


def wrong_shape(upload: Upload) -> Upload:
    return resigned(upload, **{"head.bias": torch.zeros(7)})


def extra_key(upload: Upload) -> Upload:
    return resigned(upload, extra=torch.zeros(1))


def constant(upload: Upload) -> Upload:
    return resigned(upload, **{"head.weight": torch.zeros_like(upload.arrays["head.weight"])})


def tampered(upload: Upload) -> Upload:
    return replace(upload, arrays={**upload.arrays, "head.bias": upload.arrays["head.bias"] + 1})


def negative_variance(upload: Upload) -> Upload:
    layer, moments = next(iter(upload.statistics.items()))
    return replace(upload, statistics={**upload.statistics, layer: Moments(moments.mean, -moments.variance - 1)})


def unknown_layer(upload: Upload) -> Upload:
    return replace(upload, statistics={"nowhere": next(iter(upload.statistics.values()))})


def unknown_architecture(upload: Upload) -> Upload:
    return replace(upload, manifest={**upload.manifest, "architecture": "resnet1999"})


def repeated_class(upload: Upload) -> Upload:
    return replace(upload, manifest={**upload.manifest, "class_names": ["cat", "cat"]})


def newer_schema(upload: Upload) -> Upload:
    return replace(upload, manifest={**upload.manifest, "schema": 99})


BAD = {
    not_finite: "not finite",
    wrong_shape: "shape",
    extra_key: "do not fit the architecture, first at 'extra'",
    constant: "says the same of every image",
    tampered: "not those that its manifest signs",
    negative_variance: "negative",
    unknown_layer: "unknown layer 'nowhere'",
    unknown_architecture: "'resnet1999'",
    repeated_class: "must be non-empty and differ",
    newer_schema: "schema 99",
}


def test_fit_upload_is_admitted(upload):
    check(upload)


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_unfit_upload_is_refused_with_its_reason(upload, spoil):
    with pytest.raises(Refused, match=BAD[spoil]) as refusal:
        check(spoil(upload))

    assert "'site-a'" in str(refusal.value)


def test_refused_upload_goes_to_quarantine_and_the_others_go_on(upload, tmp_path):
    workspace = Workspace(tmp_path)
    upload.save(workspace.upload("good"))
    not_finite(upload).save(workspace.upload("bad"))

    admitted, refused = admit(workspace)

    assert len(admitted) == 1
    assert refused.keys() == {"bad"}
    assert "not finite" in json.loads((tmp_path / "quarantine" / "bad" / "reason.json").read_text())["reason"]


def test_broken_file_is_a_reason_not_a_traceback(upload, tmp_path):
    workspace = Workspace(tmp_path)
    upload.save(workspace.upload("broken"))
    (workspace.upload("broken") / "model.safetensors").write_bytes(b"not a tensor file")

    _, refused = admit(workspace)

    assert "unreadable upload" in refused["broken"]
