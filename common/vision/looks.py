"""How training images are varied, by kind of image: digits, photographs, micrographs.

General and synthetic images differ in colour, sharpness and scale from a client's images, so a classifier that learns
from them must see many looks. One profile serves general models, their replay at clients, and the student. A client's
own images keep their look, but are moved as the profile allows.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import MixUp
from torchvision.transforms.v2.functional import gaussian_blur

from common.vision.augmentation import augment, vary_look

BLUR_KERNEL = 5
"""Pixels on a side of the kernel that blurs."""


@dataclass(frozen=True)
class Looks:
    """Bounds of the random changes of one profile; 0 turns a change off."""

    scale: float = 0.3
    """Largest relative zoom: clients differ in how much of a frame an object fills."""
    degrees: float = 10.0
    """Largest rotation."""
    crop: float = 1.0
    """Smallest share of an image's area that is shown, anywhere in it; 1 turns it off."""
    mirrors: bool = False
    """Mirror half of the images, left to right."""
    quarter_turns: bool = False
    """Turn each image by any number of quarters."""
    hue: float = 0.0
    """Largest turn of the colours about the grey axis, as a share of a full turn."""
    saturation: float = 0.0
    """Largest relative change of the colours' distance from grey."""
    gamma: float = 0.0
    """Largest absolute logarithm of the exponent of each channel."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels of an image of 32 pixels; half of the images get it."""
    contrast: float = 0.4
    """Largest relative change of each channel's contrast."""
    brightness: float = 0.25
    """Largest change of each channel's brightness."""
    mixup: float = 0.0
    """Parameter of the Beta distribution by which two images are mixed while a general model learns."""


PROFILES: dict[str, Looks | None] = {
    "none": None,
    "digits": Looks(),
    "photos": Looks(crop=0.35, mirrors=True, hue=0.05, saturation=0.4, gamma=0.3, blur=1.0),
    "microscopy": Looks(
        degrees=45.0,
        mirrors=True,
        quarter_turns=True,
        hue=0.25,
        saturation=1.0,
        gamma=0.5,
        blur=1.0,
        contrast=0.4,
        brightness=0.2,
        mixup=0.4,
    ),
}
"""Value of the config key `looks` -> profile."""


def describe(looks: str) -> dict[str, Any] | None:
    """What a result depends on of a profile, for the key of a cache."""
    profile = PROFILES[looks]
    return None if profile is None else asdict(profile)


def make_mixing(looks: str, num_classes: int) -> MixUp | None:
    """What mixes the images of a batch in pairs, and their labels (arXiv 1710.09412); None where the profile does not.

    It draws from PyTorch's own random numbers.
    """
    profile = PROFILES[looks]
    return MixUp(alpha=profile.mixup, num_classes=num_classes) if profile and profile.mixup else None


def vary(
    images: torch.Tensor,  # (B, 3, h, w) in [0, 1]
    looks: str,
    generator: torch.Generator,  # on the CPU
) -> torch.Tensor:
    """Move each image a little and change its look at random, as the profile `looks` says.

    Returns the same shape and dtype, in [0, 1].
    """
    profile = PROFILES[looks]
    if profile is None:
        return augment(images, generator)
    images = augment(_flip(images, profile, generator), generator, degrees=profile.degrees, scale=profile.scale)
    if profile.hue or profile.saturation:
        images = _recolour(images, profile, generator)
    if profile.gamma:
        exponents = torch.exp(profile.gamma * (2 * _uniform(images, generator, 3, 1, 1) - 1))
        images = images.clamp(1e-4, 1) ** exponents
    if profile.blur:
        images = _blur(images, profile.blur, generator)
    return vary_look(images, generator, profile.contrast, profile.brightness)


def move(
    images: torch.Tensor,  # (B, 3, h, w), any float range
    looks: str,
    generator: torch.Generator,  # on the CPU
) -> torch.Tensor:
    """Move each image a little, and mirror and turn it where the profile `looks` does; its look stays as it is.

    Returns the same shape and dtype.
    """
    profile = PROFILES[looks]
    if profile is None:
        return augment(images, generator)
    return augment(_flip(images, profile, generator), generator, degrees=profile.degrees)


def _flip(images: torch.Tensor, profile: Looks, generator: torch.Generator) -> torch.Tensor:
    if profile.quarter_turns:
        images = _turn(images, generator)
    if profile.mirrors:
        mirrored = _uniform(images, generator, 1, 1, 1) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    return _crop(images, profile.crop, generator) if profile.crop < 1 else images


def _uniform(images: torch.Tensor, generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Random numbers in [0, 1) for each image, (B, *shape), on the images' device."""
    return torch.rand(len(images), *shape, generator=generator).to(images)


def _turn(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Square images, each turned by a random number of quarters."""
    turns = torch.randint(0, 4, (len(images), 1, 1, 1), generator=generator).to(images.device)
    turned = images
    for quarters in (1, 2, 3):
        turned = torch.where(turns == quarters, images.rot90(quarters, (2, 3)), turned)
    return turned


def _crop(images: torch.Tensor, least: float, generator: torch.Generator) -> torch.Tensor:
    """A square somewhere in each image, of at least the share `least` of its area, enlarged to the whole."""
    if not len(images):
        return images
    side = (least + (1 - least) * _uniform(images, generator)).sqrt()
    theta = torch.zeros(len(images), 2, 3).to(images)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = (1 - side)[:, None] * (2 * _uniform(images, generator, 2) - 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _recolour(images: torch.Tensor, profile: Looks, generator: torch.Generator) -> torch.Tensor:
    """Turn and stretch the colours about the grey axis by one linear map of RGB for each image."""
    angle = 2 * torch.pi * profile.hue * (2 * _uniform(images, generator) - 1)
    stretch = 1 + profile.saturation * (2 * _uniform(images, generator) - 1)
    identity = torch.eye(3).to(images)
    grey = torch.full((3, 3), 1 / 3).to(images)
    # The rotation about (1, 1, 1) by Rodrigues' formula; `cross` turns a colour by a right angle about that axis.
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(images) / 3**0.5
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    colours = stretch[:, None, None] * (cosine * (identity - grey) + sine * cross)
    return torch.einsum("bij,bjhw->bihw", grey + colours, images).clamp(0, 1)


def _blur(images: torch.Tensor, largest: float, generator: torch.Generator) -> torch.Tensor:
    """Every second image, by chance, blurred; the strength is one for the batch."""
    strength = largest * float(torch.rand((), generator=generator)) * images.shape[-1] / 32
    blurred = gaussian_blur(images, [BLUR_KERNEL, BLUR_KERNEL], [max(strength, 0.1)] * 2)
    return torch.where(_uniform(images, generator, 1, 1, 1) < 0.5, blurred, images)
