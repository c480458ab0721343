"""Channel moments: what BatchNorm keeps, what is tapped where there is none, and how batches pool."""

import pytest
import torch
from torchvision.models.convnext import LayerNorm2d

from common.models import architectures, feature_statistics
from common.models.feature_statistics import Moments


@pytest.mark.parametrize("name", architectures.SMALL)
def test_every_small_architecture_has_statistics_that_round_trip(name):
    model = architectures.build(name, 3)

    gathered = feature_statistics.gather(model, [torch.randn(4, 3, 32, 32)])

    restored = feature_statistics.from_tensors(feature_statistics.to_tensors(gathered))
    assert gathered
    assert restored.keys() == gathered.keys()
    for layer, moments in gathered.items():
        assert torch.equal(restored[layer].mean, moments.mean)
        assert torch.equal(restored[layer].variance, moments.variance)


def test_tapped_moments_are_those_of_the_whole_set():
    model = architectures.build("small_convnext", 3)
    images = torch.randn(12, 3, 32, 32)
    layer = next(name for name in feature_statistics.tapped_layers(model))
    seen = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(images)
    handle.remove()
    channel = feature_statistics.channel_dimension(model.get_submodule(layer), seen[0])
    flat = seen[0].movedim(channel, 0).flatten(1)

    gathered = feature_statistics.gather(model, images.split(5))

    torch.testing.assert_close(gathered[layer].mean, flat.mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gathered[layer].variance, flat.var(1, correction=0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["small_resnet", "small_convnext"])
def test_moments_by_class_are_those_of_each_class_alone(name: str):
    model = architectures.build(name, 3).eval()
    images, labels = torch.randn(24, 3, 32, 32), torch.tensor([0, 2, 0, 2, 2, 0, 0, 0, 2, 2, 1, 0] * 2)
    layer = next(iter(feature_statistics.tapped_layers(model)))

    gathered = feature_statistics.gather_by_class(model, zip(images.split(5), labels.split(5), strict=True), 3)[layer]

    for row, members in enumerate((labels == 0, labels != 1, labels == 2)):
        with feature_statistics.recording(model, [layer]) as recorded:
            model(images[members])
        alone = feature_statistics.pool(recorded[layer])
        torch.testing.assert_close(gathered.mean[row], alone.mean[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gathered.variance[row], alone.variance[0], atol=1e-5, rtol=1e-4)


def test_pooled_moments_are_those_of_the_batch():
    features = torch.randn(6, 5, 4, 4)
    per_image = feature_statistics.per_image_moments(torch.nn.BatchNorm2d(5), features)

    pooled = feature_statistics.pool(per_image)

    torch.testing.assert_close(pooled.mean[0], features.mean((0, 2, 3)))
    torch.testing.assert_close(pooled.variance[0], features.var((0, 2, 3), correction=0))


def test_batch_norm_moments_are_taken_from_the_layers_input():
    layer = torch.nn.BatchNorm2d(2)
    net = torch.nn.Sequential(layer)
    images = torch.randn(3, 2, 4, 4)

    with feature_statistics.recording(net, ["0"]) as recorded:
        net(images)

    assert isinstance(recorded["0"], Moments)
    torch.testing.assert_close(recorded["0"].mean, images.mean((2, 3)))


@pytest.mark.parametrize(
    ("layer", "shape", "channel"),
    [
        pytest.param(torch.nn.LayerNorm(5), (3, 7, 5), 2, id="tokens of a LayerNorm"),
        pytest.param(torch.nn.LayerNorm(5), (3, 4, 4, 5), 3, id="channels-last maps of a LayerNorm"),
        pytest.param(torch.nn.LayerNorm(5), (3, 5, 5, 5), 3, id="channels-last maps as wide as they are deep"),
        pytest.param(torch.nn.LayerNorm(5), (3, 5), 1, id="vectors of a LayerNorm"),
        pytest.param(LayerNorm2d(5), (3, 5, 4, 4), 1, id="maps of a LayerNorm2d"),
        pytest.param(LayerNorm2d(5), (3, 5, 5, 5), 1, id="maps of a LayerNorm2d as wide as they are deep"),
        pytest.param(torch.nn.Linear(5, 2), (3, 7, 5), 2, id="tokens of a Linear"),
        pytest.param(torch.nn.Linear(5, 2), (3, 5), 1, id="vectors of a Linear"),
        pytest.param(torch.nn.GroupNorm(1, 5), (3, 5, 4, 4), 1, id="maps of a GroupNorm"),
        pytest.param(torch.nn.BatchNorm1d(5), (3, 5), 1, id="vectors of a BatchNorm1d"),
    ],
)
def test_moments_are_over_everything_but_image_and_channel(
    layer: torch.nn.Module, shape: tuple[int, ...], channel: int
):
    features = torch.randn(shape)

    moments = feature_statistics.per_image_moments(layer, features)

    by_channel = features.movedim(channel, 1).reshape(3, 5, -1)
    torch.testing.assert_close(moments.mean, by_channel.mean(2))
    torch.testing.assert_close(moments.variance, by_channel.var(2, correction=0))
