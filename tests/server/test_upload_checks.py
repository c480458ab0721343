"""Every way an upload can be unfit is refused with a reason that names the client and what is wrong."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config import Config
from common.models.feature_statistics import Moments
from common.models.small import SMALL, SMALL_OF_ONE_SIZE
from common.upload import Upload
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from tests import manifests
from tests.conftest import make_upload
from tests.manifests import receive

Spoil = Callable[[Upload], Upload]
Say = Callable[[dict], object]
"""A manifest as JSON -> another JSON value in its place."""


@pytest.fixture(scope="module")
def fit() -> Upload:
    return make_upload("site-a", ["cat", "dog"])


def saying(**changes: object) -> Say:
    return lambda manifest: {**manifest, **changes}


def without(key: str) -> Say:
    return lambda manifest: {name: value for name, value in manifest.items() if name != key}


def training(**changes: object) -> Say:
    return lambda manifest: {**manifest, "training": {**manifest["training"], **changes}}


def untold(key: str) -> Say:
    return lambda manifest: {**manifest, "training": without(key)(manifest["training"])}


def preprocessing(**changes: object) -> Say:
    return lambda manifest: {**manifest, "preprocessing": {**manifest["preprocessing"], **changes}}


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


BAD_MANIFESTS: dict[str, tuple[Say, str]] = {
    "newer schema": (saying(schema=99), "'schema' = 99: this version reads schema 1"),
    "schema of another type": (saying(schema=True), "'schema' = True: it must be a whole number"),
    "no schema": (without("schema"), "lacks 'schema'"),
    "class names no list": (saying(class_names="catdog"), "'class_names' = 'catdog': it must be a list"),
    "no class": (saying(class_names=[]), "'class_names' = .*: it must have at least 1 item"),
    "empty class": (saying(class_names=["cat", ""]), "'class_names.1' = '': a name must be printable"),
    "blank class": (saying(class_names=["cat", " "]), "'class_names.1' = ' ': a name must be printable"),
    "padded class": (saying(class_names=["cat", "dog "]), "'class_names.1' = 'dog ': a name must be printable"),
    "class of another type": (saying(class_names=["cat", 3]), "'class_names.1' = 3: it must be a text"),
    "class with control characters": (saying(class_names=["cat", "dog\x1b[2J"]), "a name must be printable"),
    "class with a lone surrogate": (saying(class_names=["cat", "\ud800"]), "a name must be printable"),
    "endless class": (saying(class_names=["cat", "d" * 101]), "with 1 to 100 characters"),
    "classes one but for case": (saying(class_names=["cat", "CAT"]), "'cat' and 'CAT' count as one class"),
    "repeated class": (saying(class_names=["cat", "cat"]), "names the class 'cat' more than once"),
    "more classes than the head": (saying(class_names=["cat", "dog", "fox"], class_counts=[1] * 3), "must have shape"),
    "counts no list": (saying(class_counts={"cat": 1}), "'class_counts' = {'cat': 1}: it must be a list"),
    "negative count": (saying(class_counts=[1, -1]), "'class_counts.1' = -1: it must be greater than or equal to 0"),
    "count missing": (saying(class_counts=[1]), "counts the images of 1 classes, but names 2"),
    "no preprocessing": (without("preprocessing"), "lacks 'preprocessing'"),
    "other image size": (preprocessing(image_size=10**9), "images of 32 pixels \\('image-size'\\), got 1000000000"),
    "deviation of zero": (preprocessing(std=[0.25, 0.25, 0.0]), "'preprocessing.std.2' = 0.0"),
    "mean not a number": (preprocessing(mean=[0.5, 0.5, float("nan")]), "'preprocessing.mean.2' = nan"),
    "two means": (preprocessing(mean=[0.5, 0.5]), "'preprocessing.mean' = .*: it must have at least 3 items"),
    "no training": (saying(training=[]), r"'training' = \[\]: it must be an object"),
    "examples of another type": (
        training(num_examples="many"),
        "'training.num_examples' = 'many': it must be a whole number",
    ),
    "accuracy above one": (
        training(validation_accuracy=1.01),
        "'training.validation_accuracy' = 1.01: it must be less than or equal to 1",
    ),
    "negative accuracy": (training(test_accuracy=-0.1), "'training.test_accuracy' = -0.1: it must be greater than"),
    "accuracy not a number": (
        training(test_accuracy=float("nan")),
        "'training.test_accuracy' = nan: it must be a finite number",
    ),
    "accuracy of another type": (
        training(validation_accuracy="high"),
        "'training.validation_accuracy' = 'high': it must be a number",
    ),
    "history of another type": (training(history="long"), "'training.history' = 'long': it must be a list"),
    "history with a nested value": (training(history=[{"epoch": [1]}]), "'training.history.0.epoch'"),
    "data of a stranger": (saying(data="digits/../../secret"), "got 'digits/../../secret'"),
    "unknown architecture": (saying(architecture="resnet1999"), "'resnet1999' is unknown to this server"),
    "architecture of another type": (saying(architecture=["small_resnet"]), "'architecture' = .*: it must be a text"),
    "builder nobody trusts": (
        saying(architecture="os:abort"),
        "the builder 'os:abort'; this server imports only",
    ),
    "other architecture": (
        saying(architecture="small_convnext"),
        "do not match its architecture, first at",
    ),
    "weights of too large an architecture": (saying(architecture="vit_h_14"), "do not match its architecture"),
    "unsigned weights": (without("sha256"), "lacks 'sha256'"),
    "a budget below zero": (
        saying(privacy={"epsilon": -1.0, "delta": 0.1}),
        "'privacy.epsilon' = -1.0: it must be greater than or equal to 0",
    ),
    "a membership of words": (saying(membership={"auc": "low"}), "'membership.auc' = 'low': it must be a number"),
    "a membership above certainty": (
        saying(membership={"auc": 5e8, "tpr_at_1_percent_fpr": 0.1}),
        "'membership.auc' = 500000000.0: it must be less",
    ),
    "no validation accuracy": (untold("validation_accuracy"), "lacks 'training.validation_accuracy'"),
    "no test accuracy": (untold("test_accuracy"), "lacks 'training.test_accuracy'"),
    "an unknown key of the preprocessing": (preprocessing(crop=3), "has the unknown key 'preprocessing.crop'"),
    "a count without end": (saying(class_counts=[1, 10**400]), "'class_counts.1' = 1000.*: it must be less than"),
    "an accuracy without end": (training(test_accuracy=10**400), "'training.test_accuracy' = 1000"),
    "a truth in place of a number": (training(seconds=True), "'training.seconds' = True: it must be a number"),
    "too many epochs": (training(history=[{"epoch": 1}] * 100_001), "it must have at most 100000 items"),
}
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
NAMELESS: dict[str, Say] = {
    "no name": without("client"),
    "empty name": saying(client=""),
    "name of another type": saying(client=["site-a"]),
    "name with control characters": saying(client="site\x00a"),
    "endless name": saying(client="a" * 10_000),
    "manifest no object": lambda manifest: ["site-a"],
}


def test_a_fit_upload_is_not_refused(fit: Upload):
    check_upload(fit, Config())


def test_nobody_is_virtual_where_clients_have_folders_of_their_own(fit: Upload):
    with pytest.raises(UploadError, match="got 'digits/mnist'"):
        check_upload(manifests.saying(fit, data="digits/mnist"), Config.from_run_config({"dataset": ""}))


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


@pytest.mark.parametrize(("say", "reason"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_manifest_that_is_none_is_refused_with_client_and_key(fit: Upload, tmp_path: Path, say: Say, reason: str):
    with pytest.raises(UploadError, match=reason) as refusal:
        receive(tmp_path / "site-a", fit, say(fit.manifest.to_json()))

    assert str(refusal.value).startswith("client 'site-a': ")


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_an_unfit_upload_is_refused_with_its_reason(fit: Upload, spoil: Spoil, reason: str):
    with pytest.raises(UploadError, match=reason) as refusal:
        check_upload(spoil(fit), Config())

    assert str(refusal.value).startswith("client 'site-a': ")


@pytest.mark.parametrize("say", NAMELESS.values(), ids=NAMELESS)
def test_an_upload_without_a_proper_name_is_refused_in_a_short_sentence(fit: Upload, tmp_path: Path, say: Say):
    with pytest.raises(UploadError) as refusal:
        receive(tmp_path / "site-a", fit, say(fit.manifest.to_json()))

    assert len(str(refusal.value)) < 250
    assert str(refusal.value).isprintable()


def test_a_builder_is_imported_only_when_the_servers_own_config_names_it(fit: Upload):
    name = "common.models.small:small_vit"
    upload = make_upload("site-a", ["cat", "dog"], "small_vit")
    upload = manifests.saying(upload, architecture=name)
    config = Config.from_run_config({"architectures": f"small_resnet, {name}"})

    with pytest.raises(UploadError, match="this server imports only builders in"):
        check_upload(upload, Config())
    check_upload(replace(upload, builders=config.builders), config)


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
