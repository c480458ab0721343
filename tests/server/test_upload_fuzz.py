"""Whatever a client sends, the server answers with an upload or with one sentence, never with another error."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from common import manifest
from common.config import Config
from common.labels import union_of_names
from common.labels.maps import to_global_indices
from common.manifest import ManifestError
from common.models.feature_statistics import Moments, to_tensors
from common.names import safe_name
from common.upload import Upload
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from tests.conftest import make_upload
from tests.manifests import receive

FIT = make_upload("site-a", ["cat", "dog"], "small_mlp")
QUICK = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    shapes,
    st.sampled_from([torch.float16, torch.float32, torch.float64, torch.int8, torch.int64, torch.bool, torch.uint8]),
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
HARMLESS = ("schema", "student_copy", "client", "class_counts", "class_names", "membership", "privacy")
class_names = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, unique=True)


def same_tensors(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left
    )


@QUICK
@given(st.dictionaries(keys, tensors, max_size=4))
def test_arrays_of_any_shape_and_dtype_survive_the_wire(arrays: dict[str, torch.Tensor]):
    moments = {"layer": Moments(torch.zeros(2), torch.ones(2))}

    restored = Upload.from_records(Upload(arrays, moments, FIT.manifest).to_records())

    assert same_tensors(restored.arrays, arrays)
    assert same_tensors(to_tensors(restored.statistics), to_tensors(moments))
    assert restored.manifest == FIT.manifest


@QUICK
@given(st.binary(max_size=200) | st.binary(max_size=60).map(b"\x93NUMPY\x01\x00".__add__))
def test_bytes_that_are_no_array_are_one_sentence(content: bytes):
    records = FIT.to_records()
    records["arrays"] = ArrayRecord({"head": Array("float32", (1,), "numpy.ndarray", content)})

    with pytest.raises(ValueError, match="its records are not those of an upload"):
        Upload.from_records(records)


@QUICK
@given(st.text(max_size=30) | json_values.map(json.dumps) | st.just("[" * 200_000) | st.just("9" * 9999))
def test_a_manifest_of_any_text_is_refused_in_a_sentence(text: str):
    records = FIT.to_records()
    records["manifest"] = ConfigRecord({"json": text})

    with pytest.raises(ManifestError, match=r"^its manifest "):
        Upload.from_records(records)


@QUICK
@given(st.dictionaries(keys, json_values, max_size=3))
def test_keys_that_nobody_knows_are_ignored(extra: dict):
    assert manifest.parse(json.dumps({**extra, **FIT.manifest.to_json()})) == FIT.manifest


def test_missing_records_are_one_sentence():
    with pytest.raises(ValueError, match="its records are not those of an upload"):
        Upload.from_records(RecordDict({"arrays": FIT.to_records()["arrays"]}))


@QUICK
@given(st.sampled_from(sorted(FIT.manifest.to_json())), json_values)
def test_a_manifest_value_of_any_kind_is_refused_or_harmless(tmp_path: Path, key: str, value: object):
    try:
        receive(tmp_path / "site-a", FIT, {**FIT.manifest.to_json(), key: value})
        reason = ""
    except UploadError as refusal:
        reason = str(refusal)

    is_as_before = value == FIT.manifest.to_json()[key]
    assert reason.startswith("client ") or (reason == "" and (key in HARMLESS or is_as_before))
    assert reason == "" or reason.isprintable()


@QUICK
@given(st.sampled_from(sorted(FIT.arrays)), tensors)
def test_another_tensor_in_place_of_weights_is_refused(key: str, tensor: torch.Tensor):
    assume(tensor.shape != FIT.arrays[key].shape)
    arrays = {**FIT.arrays, key: tensor}
    changed = FIT.with_arrays(arrays)

    with pytest.raises(UploadError, match="client 'site-a': "):
        check_upload(changed, Config())


@QUICK
@given(st.sampled_from(sorted(FIT.statistics)), tensors, tensors)
def test_other_tensors_in_place_of_statistics_are_refused(layer: str, mean: torch.Tensor, variance: torch.Tensor):
    changed = replace(FIT, statistics={**FIT.statistics, layer: Moments(mean, variance)})

    with pytest.raises(UploadError, match="client 'site-a': "):
        check_upload(changed, Config())


@QUICK
@given(st.lists(class_names, min_size=1, max_size=4))
def test_the_union_holds_each_class_of_each_client_once(label_spaces: list[list[str]]):
    names = union_of_names(label_spaces)

    assert sorted(names) == sorted({name for space in label_spaces for name in space})
    assert all([names[index] for index in to_global_indices(space, names)] == space for space in label_spaces)


@QUICK
@given(st.lists(class_names, min_size=1, max_size=4), st.randoms())
def test_the_union_does_not_depend_on_who_answers_first(label_spaces: list[list[str]], random):
    shuffled = list(label_spaces)
    random.shuffle(shuffled)

    assert union_of_names(shuffled) == union_of_names(label_spaces)


@QUICK
@given(st.text())
def test_any_name_becomes_one_harmless_file_name(name: str):
    try:
        file_name = safe_name(name)
    except UnicodeEncodeError:  # Lone surrogates; no client name or class name may hold one.
        return

    assert file_name.strip(".")
    assert not set(file_name) & set("/\\\0\n ")
    assert len(file_name) <= 64
