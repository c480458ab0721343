"""Every way an upload can be unfit is refused with a reason that names the client and what is wrong."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from common.config import Config
from common.models.feature_statistics import Moments
from common.upload import Upload, weights_digest
from fedlmg_server.collection.upload_checks import Refused, check
from tests.conftest import make_upload

Spoil = Callable[[Upload], Upload]


@pytest.fixture(scope="module")
def fit() -> Upload:
    return make_upload("site-a", ["cat", "dog"])


def saying(**changes: object) -> Spoil:
    """The same upload with other manifest values."""
    return lambda upload: replace(upload, manifest={**upload.manifest, **changes})


def without(key: str) -> Spoil:
    return lambda upload: replace(upload, manifest={k: v for k, v in upload.manifest.items() if k != key})


def training(**changes: object) -> Spoil:
    return lambda upload: saying(training={**upload.manifest["training"], **changes})(upload)


def untold(key: str) -> Spoil:
    def spoil(upload: Upload) -> Upload:
        told = {name: value for name, value in upload.manifest["training"].items() if name != key}
        return saying(training=told)(upload)

    return spoil


def preprocessing(**changes: object) -> Spoil:
    return lambda upload: saying(preprocessing={**upload.manifest["preprocessing"], **changes})(upload)


def weights(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    """The same upload with another tensor, and signed again."""

    def spoil(upload: Upload) -> Upload:
        arrays = {**upload.arrays, key: change(upload.arrays.get(key, torch.zeros(1)))}
        return replace(upload, arrays=arrays, manifest={**upload.manifest, "sha256": weights_digest(arrays)})

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


BAD: dict[str, tuple[Spoil, str]] = {
    "newer schema": (saying(schema=99), "schema 99; this server reads 1"),
    "schema of another type": (saying(schema=True), "schema True"),
    "no schema": (without("schema"), "schema None"),
    "class names no list": (saying(class_names="catdog"), "'class_names' must be a list"),
    "no class": (saying(class_names=[]), "'class_names' must be a list of 1 to"),
    "empty class": (saying(class_names=["cat", ""]), "class '' is no name"),
    "blank class": (saying(class_names=["cat", " "]), "class ' ' is no name"),
    "padded class": (saying(class_names=["cat", "dog "]), "class 'dog ' is no name"),
    "class of another type": (saying(class_names=["cat", 3]), "class 3 is no name"),
    "class with control characters": (saying(class_names=["cat", "dog\x1b[2J"]), "is no name"),
    "class with a lone surrogate": (saying(class_names=["cat", "\ud800"]), "is no name"),
    "endless class": (saying(class_names=["cat", "d" * 101]), "with 1 to 100 characters"),
    "classes one but for case": (saying(class_names=["cat", "CAT"]), "'cat' and 'CAT' count as one class"),
    "repeated class": (saying(class_names=["cat", "cat"]), "names the class 'cat' more than once"),
    "more classes than the head": (saying(class_names=["cat", "dog", "fox"], class_counts=[1] * 3), "has shape"),
    "counts no list": (saying(class_counts={"cat": 1}), "'class_counts' must be whole numbers"),
    "negative count": (saying(class_counts=[1, -1]), "'class_counts' must be whole numbers"),
    "count missing": (saying(class_counts=[1]), "counts the images of 1 classes, but names 2"),
    "no preprocessing": (without("preprocessing"), "must hold image_size, mean and std"),
    "other image size": (preprocessing(image_size=10**9), "images of 1000000000 pixels; this run's 'image-size' is 32"),
    "deviation of zero": (preprocessing(std=[0.25, 0.25, 0.0]), "'std' of its preprocessing"),
    "mean not a number": (preprocessing(mean=[0.5, 0.5, float("nan")]), "'mean' of its preprocessing"),
    "two means": (preprocessing(mean=[0.5, 0.5]), "'mean' of its preprocessing"),
    "no training": (saying(training=[]), "'training' must hold num_examples"),
    "examples of another type": (training(num_examples="many"), "num_examples, a whole number"),
    "accuracy above one": (training(validation_accuracy=1.01), "'validation_accuracy' of 1.01"),
    "negative accuracy": (training(test_accuracy=-0.1), "'test_accuracy' of -0.1"),
    "accuracy not a number": (training(test_accuracy=float("nan")), "'test_accuracy' of nan"),
    "accuracy of another type": (training(validation_accuracy="high"), "'validation_accuracy' of 'high'"),
    "history of another type": (training(history="long"), "training 'history'"),
    "history with a nested value": (training(history=[{"epoch": [1]}]), "training 'history'"),
    "data of a stranger": (saying(data="digits/../../secret"), "'data' is 'digits/../../secret'"),
    "unknown architecture": (saying(architecture="resnet1999"), "'resnet1999', which this server does not know"),
    "architecture of another type": (saying(architecture=["small_resnet"]), "which this server does not know"),
    "builder nobody trusts": (
        saying(architecture="os:abort"),
        "names the builder 'os:abort', which this server imports",
    ),
    "other architecture": (saying(architecture="small_convnext"), "do not fit the architecture, first at"),
    "weights of too large an architecture": (saying(architecture="vit_h_14"), "do not fit the architecture"),
    "extra weights": (weights("../extra", lambda _: torch.zeros(1)), "first at '../extra'"),
    "weights missing": (lacks_weights, "do not fit the architecture, first at 'head.bias'"),
    "weights of another shape": (weights("head.bias", lambda _: torch.zeros(7)), r"shape \[7\], not \[2\]"),
    "whole numbers as weights": (weights("head.bias", torch.Tensor.long), "'head.bias' has dtype torch.int64"),
    "a counter with a fraction": (weights("stem.1.num_batches_tracked", torch.Tensor.float), "dtype torch.float32"),
    "weights not finite": (weights("head.bias", lambda bias: bias * torch.nan), "'head.bias': not finite"),
    "infinite weights": (weights("head.bias", lambda bias: bias + torch.inf), "'head.bias': not finite"),
    "implausible weights": (weights("head.weight", lambda weight: weight * 1e9), "'head.weight': implausibly large"),
    "negative running variance": (weights("stem.1.running_var", lambda variance: -variance - 1), "is negative"),
    "same answer to every image": (weights("head.weight", torch.zeros_like), "says the same of every image"),
    "tampered weights": (tampered, "not those that its manifest signs"),
    "unsigned weights": (without("sha256"), "not those that its manifest signs"),
    "a budget below zero": (saying(privacy={"epsilon": -1.0, "delta": 0.1}), "must hold epsilon from 0 to"),
    "a membership of words": (saying(membership={"auc": "low"}), "must hold auc from 0 to 1 and tpr"),
    "a membership above certainty": (saying(membership={"auc": 5e8, "tpr_at_1_percent_fpr": 0.1}), "auc from 0 to 1"),
    "no validation accuracy": (untold("validation_accuracy"), "lacks 'validation_accuracy', which may be null"),
    "no test accuracy": (untold("test_accuracy"), "lacks 'test_accuracy', which may be null"),
    "statistics of an unknown layer": (unknown_layer, "unknown layer 'nowhere'"),
    "statistics without a layer": (lacks_a_layer, "lack the layer"),
    "negative variance": (first_layer(lambda m: Moments(m.mean, -m.variance - 1)), "is negative"),
    "mean not finite": (first_layer(lambda m: Moments(m.mean * torch.nan, m.variance)), "not finite"),
    "implausible mean": (first_layer(lambda m: Moments(m.mean + 1e9, m.variance)), "implausibly large"),
    "statistics of other channels": (first_layer(lambda m: Moments(m.mean[1:], m.variance[1:])), r"shape \[24\]"),
    "statistics of too many classes": (
        first_layer(lambda m: by_class(m, 3)),
        r"\[24\] or \[2, 24\] that this run takes",
    ),
    "mean of four dimensions": (
        first_layer(lambda m: Moments(m.mean[None, None, None], m.variance)),
        "no vectors of float32",
    ),
    "statistics by cluster unasked": (
        first_layer(lambda m: by_cluster(by_class(m, 2), 2)),
        r"\[2, 24\] that this run takes",
    ),
    "statistics in double": (first_layer(lambda m: Moments(m.mean.double(), m.variance)), "no vectors of float32"),
}
NAMELESS: dict[str, Spoil] = {
    "no name": without("client"),
    "empty name": saying(client=""),
    "name of another type": saying(client=["site-a"]),
    "name with control characters": saying(client="site\x00a"),
    "endless name": saying(client="a" * 10_000),
    "manifest no object": lambda upload: replace(upload, manifest=["site-a"]),
}


def test_a_fit_upload_is_not_refused(fit: Upload):
    check(fit, Config())


def test_nobody_is_virtual_where_clients_have_folders_of_their_own(fit: Upload):
    with pytest.raises(Refused, match="its 'data' is 'digits/mnist'"):
        check(saying(data="digits/mnist")(fit), Config.from_run_config({"dataset": ""}))


@pytest.mark.parametrize("taken", [True, False])
def test_statistics_by_class_are_taken_where_the_run_asks_for_them(fit: Upload, taken: bool):
    config = Config.from_run_config({"statistics": "class" if taken else "global"})
    rows = {layer: by_class(moments, 2) for layer, moments in fit.statistics.items()}
    refusal = nullcontext() if taken else pytest.raises(Refused, match=r"the shape \[24\] that this run takes")

    with refusal:
        check(replace(fit, statistics=rows), config)


@pytest.mark.parametrize("taken", ["class", "class/2", "class/4"])
def test_statistics_by_cluster_are_taken_where_the_run_asks_for_as_many(fit: Upload, taken: str):
    config = Config.from_run_config({"statistics": taken})
    clusters = {layer: by_cluster(by_class(moments, 2), 2) for layer, moments in fit.statistics.items()}
    refusal = nullcontext() if taken == "class/2" else pytest.raises(Refused, match="that this run takes")

    with refusal:
        check(replace(fit, statistics=clusters), config)


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_an_unfit_upload_is_refused_with_its_reason(fit: Upload, spoil: Spoil, reason: str):
    with pytest.raises(Refused, match=reason) as refusal:
        check(spoil(fit), Config())

    assert str(refusal.value).startswith("client 'site-a': ")


@pytest.mark.parametrize("spoil", NAMELESS.values(), ids=NAMELESS)
def test_an_upload_without_a_proper_name_is_refused_in_a_short_sentence(fit: Upload, spoil: Spoil):
    with pytest.raises(Refused) as refusal:
        check(spoil(fit), Config())

    assert len(str(refusal.value)) < 250
    assert str(refusal.value).isprintable()


def test_a_builder_is_imported_only_when_the_servers_own_config_names_it(fit: Upload):
    name = "common.models.small:small_vit"
    upload = make_upload("site-a", ["cat", "dog"], "small_vit")
    upload = replace(upload, manifest={**upload.manifest, "architecture": name})
    config = Config.from_run_config({"architectures": f"small_resnet, {name}"})

    with pytest.raises(Refused, match="which this server imports only if"):
        check(upload, Config())
    check(replace(upload, builders=config.builders), config)


def test_withheld_statistics_are_taken(fit: Upload):
    check(replace(fit, statistics={}), Config())


def test_group_norm_in_place_of_batch_norm_is_known():
    upload = make_upload("site-a", ["cat", "dog"], "small_shufflenet_v2+groupnorm")

    check(upload, Config())
