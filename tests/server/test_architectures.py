"""Every registered architecture is built, uploaded, restored, validated and guides images, at every image size."""

import pytest
import torch
from accelerate import init_empty_weights

from common.config import Config
from common.models import architectures
from common.upload import Upload
from fedlmg_server.collection.validation import check_upload
from fedlmg_server.synthesis.guidance import ClassifierGuidance, gradient
from tests.conftest import make_upload

SMALL = (*architectures.SMALL, *architectures.SMALL_OF_ONE_SIZE)
LIGHT = ("mnasnet0_5", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")
FAMILIES = (
    *LIGHT,
    *(
        "alexnet",
        "convnext_tiny",
        "efficientnet_b0",
        "googlenet",
        "mobilenet_v2",
        "regnet_y_400mf",
        "resnet18",
        "swin_t",
    ),
)
"""The cheapest member of each of torchvision's families; the light ones take half a second."""


def with_slow(fast: tuple[str, ...]) -> list:
    """Every architecture; those that are not `fast` are marked slow."""
    slow = [name for name in architectures.list_names() if name not in fast]
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


def empty(name: str, image_size: int) -> torch.nn.Module:
    """The architecture without memory for its weights: shapes alone."""
    with init_empty_weights():
        return architectures.build(name, 5, image_size).to("meta").eval()


@pytest.mark.parametrize("name", with_slow((*SMALL, *LIGHT)))
def test_an_upload_survives_the_wire_and_guides_images(name: str):
    sent = make_upload("site-a", ["cat", "dog"], name)

    restored = Upload.from_records(sent.to_records())

    check_upload(restored, Config())
    counters = {key: tensor for key, tensor in sent.arrays.items() if not tensor.dim()}
    torch.testing.assert_close({key: restored.arrays[key] for key in counters}, counters, rtol=0, atol=0)
    guidance = ClassifierGuidance.of_upload(
        restored, torch.device("cpu"), classification_weight=1.0, statistics_weight=0.1
    )
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    targets = torch.tensor([0, 1])
    for loss in (guidance.full_loss(targets), guidance.statistics_only(targets)):
        lengths = gradient(loss(images), images).flatten(1).norm(dim=1)
        assert torch.isfinite(lengths).all()
        assert (lengths > 0).all()


@pytest.mark.parametrize("image_size", [32, 64, 224])
@pytest.mark.parametrize("name", with_slow((*SMALL, *FAMILIES)))
def test_every_image_size_runs_forward(name: str, image_size: int):
    model = empty(name, image_size)

    logits = model(torch.empty(2, 3, image_size, image_size, device="meta"))

    assert logits.shape == (2, 5)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "efficientnet_b0", "convnext_tiny", "swin_t", "maxvit_t"])
def test_a_small_image_is_not_reduced_to_one_pixel(name: str):
    model, sides = empty(name, 32), []
    for module in model.modules():
        if isinstance(module, torch.nn.AdaptiveAvgPool2d):
            module.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))

    model(torch.empty(2, 3, 32, 32, device="meta"))

    assert sides
    assert min(sides) >= 2


@pytest.mark.parametrize("name", SMALL)
def test_small_architectures_are_small(name: str):
    parameters = sum(parameter.numel() for parameter in empty(name, 32).parameters())

    assert 100_000 <= parameters <= 400_000


@pytest.mark.parametrize(
    ("name", "image_size", "reason"),
    [
        ("resnet1999", 32, "did you mean 'resnet"),
        ("resnet18", 16, "at least 28 pixels, not 16"),
        ("maxvit_t", 40, "multiple of 16 pixels, not 40"),
        ("vit_b_16", 100, "multiple of 16 pixels, not 100"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(name: str, image_size: int, reason: str):
    with pytest.raises(ValueError, match=reason):
        architectures.build(name, 2, image_size)
