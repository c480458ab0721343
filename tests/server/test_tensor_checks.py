"""Every way weights and statistics can be unfit is refused with a reason that names the client and what is wrong."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from common.config import Config
from common.models.feature_statistics import Moments
from common.models.small import SMALL, SMALL_OF_ONE_SIZE
from common.upload import Upload
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from tests import manifests
from tests.conftest import make_upload

Spoil = Callable[[Upload], Upload]


def weights(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    """The same upload with another tensor, and signed again."""

    def spoil(upload: Upload) -> Upload:
        arrays = {**upload.arrays, key: change(upload.arrays.get(key, torch.zeros(1)))}
        return upload.with_arrays(arrays)

    return spoil


def lacks_weights(upload: Upload) -> Upload:
    return replace(upload, arrays={key: tensor for key, tensor in upload.arrays.items() if key != "head.bias"})


def first_layer(change: Callable[[Moments], Moments]) -> Spoil:
    def spoil(upload: Upload) -> Upload:
        layer, moments = next(iter(upload.statistics.items()))
        return replace(upload, statistics={**upload.statistics, layer: change(moments)})

    return spoil


def by_class(moments: Moments, num_classes: int) -> Moments:
    return Moments(moments.mean.repeat(num_classes, 1), moments.variance.repeat(num_classes, 1))


def by_cluster(moments: Moments, num_clusters: int) -> Moments:
    return Moments(moments.mean.repeat(num_clusters, 1, 1), moments.variance.repeat(num_clusters, 1, 1))


def unknown_layer(upload: Upload) -> Upload:
    return replace(upload, statistics={**upload.statistics, "nowhere": next(iter(upload.statistics.values()))})


def lacks_a_layer(upload: Upload) -> Upload:
    return replace(upload, statistics=dict(list(upload.statistics.items())[1:]))


def tampered(upload: Upload) -> Upload:
    return replace(upload, arrays={**upload.arrays, "head.bias": upload.arrays["head.bias"] + 1})


def blown_up(upload: Upload) -> Upload:
    """Finite on noise, but a layer's variance overflows, so that its loss has no gradient."""
    arrays = {
        key: torch.zeros_like(tensor)
        if key.endswith("running_var")
        else torch.full_like(tensor, 30.0)
        if f"{key.removesuffix('weight')}running_var" in upload.arrays
        else tensor
        for key, tensor in upload.arrays.items()
    }
    return upload.with_arrays(arrays)


BAD: dict[str, tuple[Spoil, str]] = {
    "extra weights": (weights("../extra", lambda _: torch.zeros(1)), "first at '../extra'"),
    "weights missing": (lacks_weights, "first at 'head.bias'"),
    "weights of another shape": (weights("head.bias", lambda _: torch.zeros(7)), r"shape \[2\], got \[7\]"),
    "whole numbers as weights": (
        weights("head.bias", torch.Tensor.long),
        "torch.float16 or torch.float32, got torch.int64",
    ),
    "a counter with a fraction": (
        weights("stem.1.num_batches_tracked", torch.Tensor.float),
        "must have dtype torch.int64, got torch.float32",
    ),
    "weights not finite": (
        weights("head.bias", lambda bias: bias * torch.nan),
        "'head.bias': all values must be finite",
    ),
    "infinite weights": (weights("head.bias", lambda bias: bias + torch.inf), "'head.bias': all values must be finite"),
    "implausible weights": (
        weights("head.weight", lambda weight: weight * 1e9),
        "'head.weight': the root mean square must be at most 10000",
    ),
    "negative running variance": (weights("stem.1.running_var", lambda variance: -variance - 1), "is negative"),
    "same answer to every image": (weights("head.weight", torch.zeros_like), "returns the same output for every image"),
    "weights that make guidance no number": (blown_up, "losses of a guided pass on noise must be finite"),
    "tampered weights": (tampered, "checksum mismatch between weights and manifest"),
    "statistics of an unknown layer": (unknown_layer, "the layer 'nowhere', but its classifier has no such layer"),
    "statistics without a layer": (lacks_a_layer, "lack the layer"),
    "negative variance": (first_layer(lambda m: Moments(m.mean, -m.variance - 1)), "is negative"),
    "mean not finite": (first_layer(lambda m: Moments(m.mean * torch.nan, m.variance)), "all values must be finite"),
    "implausible mean": (
        first_layer(lambda m: Moments(m.mean + 1e9, m.variance)),
        "the root mean square must be at most",
    ),
    "statistics of other channels": (first_layer(lambda m: Moments(m.mean[1:], m.variance[1:])), r"shape \[24\]"),
    "statistics of too many classes": (
        first_layer(lambda m: by_class(m, 3)),
        r"\[24\] or \[2, 24\], got",
    ),
    "mean of four dimensions": (
        first_layer(lambda m: Moments(m.mean[None, None, None], m.variance)),
        "must be float32 with 1 to 3 dimensions",
    ),
    "statistics by cluster unasked": (
        first_layer(lambda m: by_cluster(by_class(m, 2), 2)),
        r"\[2, 24\], got",
    ),
    "statistics in double": (
        first_layer(lambda m: Moments(m.mean.double(), m.variance)),
        "must be float32 with 1 to 3 dimensions",
    ),
}


def test_a_fit_upload_is_not_refused(fit: Upload):
    check_upload(fit, Config())


@pytest.mark.parametrize("taken", [True, False])
def test_statistics_by_class_are_taken_where_the_run_asks_for_them(fit: Upload, taken: bool):
    config = Config.from_run_config({"statistics": "class" if taken else "global"})
    rows = {layer: by_class(moments, 2) for layer, moments in fit.statistics.items()}
    refusal = nullcontext() if taken else pytest.raises(UploadError, match=r"must have the shape \[24\], got")

    with refusal:
        check_upload(replace(fit, statistics=rows), config)


@pytest.mark.parametrize("taken", ["class", "class/2", "class/4"])
def test_statistics_by_cluster_are_taken_where_the_run_asks_for_as_many(fit: Upload, taken: str):
    config = Config.from_run_config({"statistics": taken})
    clusters = {layer: by_cluster(by_class(moments, 2), 2) for layer, moments in fit.statistics.items()}
    refusal = nullcontext() if taken == "class/2" else pytest.raises(UploadError, match="must have the shape")

    with refusal:
        check_upload(replace(fit, statistics=clusters), config)


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_an_unfit_upload_is_refused_with_its_reason(fit: Upload, spoil: Spoil, reason: str):
    with pytest.raises(UploadError, match=reason) as refusal:
        check_upload(spoil(fit), Config())

    assert str(refusal.value).startswith("client 'site-a': ")


def test_withheld_statistics_are_taken(fit: Upload):
    check_upload(replace(fit, statistics={}), Config())


def test_group_norm_in_place_of_batch_norm_is_known():
    upload = make_upload("site-a", ["cat", "dog"], "small_shufflenet_v2+groupnorm")

    check_upload(upload, Config())


@pytest.mark.parametrize("architecture", [*SMALL, *SMALL_OF_ONE_SIZE])
def test_honest_nets_can_guide(architecture: str):
    check_upload(make_upload("site-a", ["cat", "dog"], architecture), Config())


def test_what_a_net_raises_in_a_check_is_charged_to_its_client(fit: Upload):
    name = "tests.server.bad_builders:raises_in_eval"
    config = Config.from_run_config({"architectures": name})
    upload = replace(manifests.saying(fit, architecture=name), builders=config.builders)

    with pytest.raises(UploadError, match="client 'site-a': a check of it fails with ZeroDivisionError: division"):
        check_upload(upload, config)
