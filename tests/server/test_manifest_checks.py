"""Every way a manifest can be unfit is refused with a reason that names the client and what is wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Config
from common.upload import Upload
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from tests import manifests
from tests.conftest import make_upload
from tests.manifests import receive

Say = Callable[[dict], object]
"""A manifest as JSON -> another JSON value in its place."""


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


NAMELESS: dict[str, Say] = {
    "no name": without("client"),
    "empty name": saying(client=""),
    "name of another type": saying(client=["site-a"]),
    "name with control characters": saying(client="site\x00a"),
    "endless name": saying(client="a" * 10_000),
    "manifest no object": lambda manifest: ["site-a"],
}


def test_nobody_is_virtual_where_clients_have_folders_of_their_own(fit: Upload):
    with pytest.raises(UploadError, match="got 'digits/mnist'"):
        check_upload(manifests.saying(fit, data="digits/mnist"), Config.from_run_config({"dataset": ""}))


@pytest.mark.parametrize(("say", "reason"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_manifest_that_is_none_is_refused_with_client_and_key(fit: Upload, tmp_path: Path, say: Say, reason: str):
    with pytest.raises(UploadError, match=reason) as refusal:
        receive(tmp_path / "site-a", fit, say(fit.manifest.to_json()))

    assert str(refusal.value).startswith("client 'site-a': ")


@pytest.mark.parametrize("say", NAMELESS.values(), ids=NAMELESS)
def test_an_upload_without_a_proper_name_is_refused_in_a_short_sentence(fit: Upload, tmp_path: Path, say: Say):
    with pytest.raises(UploadError) as refusal:
        receive(tmp_path / "site-a", fit, say(fit.manifest.to_json()))

    assert len(str(refusal.value)) < 250
    assert str(refusal.value).isprintable()


def test_a_builder_is_imported_only_when_the_servers_own_config_names_it():
    name = "common.models.small:small_vit"
    upload = make_upload("site-a", ["cat", "dog"], "small_vit")
    upload = manifests.saying(upload, architecture=name)
    config = Config.from_run_config({"architectures": f"small_resnet, {name}"})

    with pytest.raises(UploadError, match="this server imports only builders in"):
        check_upload(upload, Config())
    check_upload(replace(upload, builders=config.builders), config)
