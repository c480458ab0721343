"""Unfit uploads go to quarantine with a reason, and the others go on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.config import Config, ConfigError
from common.upload import Upload
from fedlmg_server import quarantine
from fedlmg_server.collection.validation import validate_uploads
from fedlmg_server.quarantine import charge
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server.any_model import draws_anything

Spoil = Callable[[Path], object]


def any_config(folder: Path, **settings: object) -> Config:
    """Of a run whose diffusion model draws any class."""
    return Config.from_run_config({"diffusion-model": draws_anything(folder / "diffusion"), **settings})


def unfit(upload: Upload) -> Upload:
    return saying(upload, schema_version=99)


def writing(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def cut_off(name: str) -> Spoil:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


BAD_FILES: dict[str, Spoil] = {
    "weights no tensor file": writing("model.safetensors", b"not a tensor file"),
    "weights empty": writing("model.safetensors", b""),
    "weights a pickle": writing("model.safetensors", b"\x80\x04cos\nabort\n."),
    "weights cut off": cut_off("model.safetensors"),
    "weights missing": lambda folder: (folder / "model.safetensors").unlink(),
    "statistics cut off": cut_off("statistics.safetensors"),
    "statistics missing": lambda folder: (folder / "statistics.safetensors").unlink(),
    "statistics without variances": lambda folder: save_file(
        {"stem.1.mean": torch.zeros(24)}, folder / "statistics.safetensors"
    ),
    "manifest no JSON": writing("manifest.json", b"{"),
    "manifest no object": writing("manifest.json", b"[]"),
    "manifest no text": writing("manifest.json", b"\xff\xfe\x00"),
    "manifest too deep": writing("manifest.json", b"[" * 200_000),
}


@pytest.mark.parametrize("spoil", BAD_FILES.values(), ids=BAD_FILES)
def test_a_broken_file_is_a_reason_not_a_traceback(upload: Upload, tmp_path: Path, spoil: Spoil):
    run = Run(any_config(tmp_path), workspace := Workspace(tmp_path))
    upload.save(workspace.upload("site-a"))
    spoil(workspace.upload("site-a"))

    refused = validate_uploads(run)

    assert run.uploads == []
    assert refused["site-a"].startswith("client 'site-a': ")


def test_a_refused_upload_goes_to_quarantine_and_the_others_go_on(upload: Upload, tmp_path: Path):
    run = Run(any_config(tmp_path), workspace := Workspace(tmp_path))
    upload.save(workspace.upload("good"))
    unfit(upload).save(workspace.upload("bad"))

    refused = validate_uploads(run)

    assert len(run.uploads) == 1
    assert refused.keys() == {"bad"}
    assert "'schema' = 99" in json.loads((tmp_path / "quarantine" / "bad" / "reason.json").read_text())["reason"]
    assert not workspace.upload("bad").exists()


def test_the_reason_of_an_earlier_refusal_is_kept(upload: Upload, tmp_path: Path):
    run = Run(any_config(tmp_path), workspace := Workspace(tmp_path))
    unfit(upload).save(workspace.upload("bad"))
    first = validate_uploads(run)

    again = validate_uploads(run)

    assert again == first


def test_a_client_that_sends_a_fit_upload_later_is_no_longer_refused(upload: Upload, tmp_path: Path):
    run = Run(any_config(tmp_path), workspace := Workspace(tmp_path))
    unfit(upload).save(workspace.upload("site-a"))
    validate_uploads(run)
    upload.save(workspace.upload("site-a"))

    refused = validate_uploads(run)

    assert (len(run.uploads), refused) == (1, {})


def test_an_upload_above_the_cap_is_refused_before_it_is_read(upload: Upload, tmp_path: Path):
    workspace = Workspace(tmp_path)
    upload.save(workspace.upload("site-a"))
    (workspace.upload("site-a") / "model.safetensors").write_bytes(b"\0" * 200_000)

    refused = validate_uploads(Run(Config.from_run_config({"max-upload-megabytes": 0.1}), workspace))

    assert "'max-upload-megabytes' allows 0.1" in refused["site-a"]


def test_uploads_spell_their_classes_alike(tmp_path: Path):
    workspace = Workspace(tmp_path)
    for client, names in {"a": ["car", "dog"], "b": ["Automobile", "DOG"]}.items():
        make_upload(client, names).save(workspace.upload(client))
    config = Config.from_run_config({"class-aliases": "automobile=car"})

    run = Run(config, workspace)

    assert [upload.class_names for upload in run.uploads] == [["car", "dog"]] * 2
    assert run.class_names == ["car", "dog"]


@pytest.fixture
def charged(upload: Upload, tmp_path: Path) -> Run:
    """A run that went on without one of two clients."""
    run = Run(any_config(tmp_path, **{"min-clients": 1}), Workspace(tmp_path))
    for name in ("good", "bad"):
        saying(upload, client=name).save(run.workspace.upload(name))
    charge(run, {"bad": "its classifier raised"})
    return run


def test_a_charged_upload_is_not_tried_again_until_its_folder_is_deleted(charged: Run, upload: Upload):
    config, workspace = charged.config, charged.workspace
    left = [each.client for each in charged.uploads]

    saying(upload, client="bad").save(workspace.upload("bad"))
    refused = validate_uploads(again := Run(config, workspace))
    left_again = [each.client for each in again.uploads]
    shutil.rmtree(workspace.quarantine / "bad")
    saying(upload, client="bad").save(workspace.upload("bad"))
    tried = validate_uploads(Run(config, workspace))

    assert left == left_again == ["good"]
    assert refused["bad"].startswith("client 'bad': its classifier raised; to try this upload again, delete ")
    assert tried == {}


def test_another_upload_of_a_charged_client_is_tried(charged: Run):
    other = saying(make_upload("site-a", ["cat", "dog"], seed=1), client="bad")

    other.save(charged.workspace.upload("bad"))

    assert validate_uploads(Run(charged.config, charged.workspace)) == {}


def test_a_charge_below_the_quorum_ends_the_run_with_a_sentence(upload: Upload, tmp_path: Path):
    run = Run(any_config(tmp_path, **{"min-clients": 2}), workspace := Workspace(tmp_path))
    for name in ("good", "bad"):
        saying(upload, client=name).save(workspace.upload(name))

    with pytest.raises(ConfigError, match=r"1 valid uploads, but 'min-clients' is 2 \(bad: client 'bad': its images"):
        charge(run, {"bad": "its images are not finite"})


def test_an_upload_is_in_quarantine_with_its_reason_or_not_at_all(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run(any_config(tmp_path), workspace := Workspace(tmp_path))
    unfit(upload).save(workspace.upload("bad"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            validate_uploads(run)

    assert validate_uploads(run).keys() == {"bad"}
