"""Weights to start from: what fits is taken, the head never, and a bad source is one sentence."""

import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from common.models import architectures, pretrained


def model_and_source(path: Path, num_classes: int = 3) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """An untrained net, and the weights of another written to `path`."""
    weights = architectures.build("small_resnet", num_classes).state_dict()
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    return architectures.build("small_resnet", 3), weights


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("num_classes", [3, 1000])
def test_all_but_the_head_is_taken(tmp_path: Path, name: str, num_classes: int):
    model, weights = model_and_source(tmp_path / name, num_classes)
    head = model.head.weight.clone()

    sentence = pretrained.initialise(model, "small_resnet", str(tmp_path / name))

    assert torch.equal(model.stem[0].weight, weights["stem.0.weight"])
    assert torch.equal(model.head.weight, head)
    assert sentence.endswith("not initialised: head.weight, head.bias")


def test_a_tensor_of_another_shape_is_left_and_said(tmp_path: Path):
    model, weights = model_and_source(tmp_path / "weights.pth")
    torch.save(weights | {"stem.0.weight": torch.zeros(1)}, tmp_path / "weights.pth")

    sentence = pretrained.initialise(model, "small_resnet", str(tmp_path / "weights.pth"))

    assert "stem.0.weight" in sentence


def test_imagenet_weights_come_from_torchvisions_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    torch.manual_seed(0)
    cached = architectures.build("squeezenet1_1", 1000, 224).state_dict()
    weights = architectures.torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    (tmp_path / "checkpoints").mkdir()
    torch.save(cached, tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = architectures.build("squeezenet1_1", 2, 32)

    pretrained.initialise(model, "squeezenet1_1", "imagenet")

    assert torch.equal(model.features[0].weight, cached["features.0.weight"])
    assert capsys.readouterr().out == ""


def test_download_of_imagenet_weights_is_told_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    told = []

    def download(*_: object, **__: object) -> None:
        told.append(capsys.readouterr().out)
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)

    with pytest.raises(ValueError, match="cannot be downloaded"):
        pretrained.initialise(architectures.build("squeezenet1_1", 2, 32), "squeezenet1_1", "imagenet")

    assert re.fullmatch(r"'squeezenet1_1' starts from ImageNet weights: https://\S+ is downloaded to \S+\n", told[0])


class Unpickled:
    """What a pickle of more than tensors would bring along."""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("missing.pth", "there is no file"),
        ("text.pth", "must hold a state dict of tensors only"),
        ("object.pth", "must hold a state dict of tensors only"),
        ("text.safetensors", "must be a safetensors file"),
        ("other.pth", "no tensor of .* fits a 'small_resnet'"),
        ("imagenet", "torchvision has no ImageNet weights of 'small_resnet'"),
    ],
)
def test_a_source_that_cannot_serve_is_one_sentence(tmp_path: Path, source: str, reason: str):
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("hello")
    torch.save({"stem.0.weight": Unpickled()}, tmp_path / "object.pth")
    torch.save({"elsewhere": torch.zeros(1)}, tmp_path / "other.pth")

    with pytest.raises(ValueError, match=reason):
        pretrained.initialise(
            architectures.build("small_resnet", 3),
            "small_resnet",
            source if source == "imagenet" else str(tmp_path / source),
        )
