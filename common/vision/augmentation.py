"""Augmentation for small images: random affine maps without mirroring (a mirrored digit is another sign).

Real images need little of it. Synthetic images differ slightly in colour and sharpness from a client's images, so they
need `vary_look` as well.
"""

import torch
import torch.nn.functional as F

COARSE_SHARES = {2: 0.6, 4: 0.3}
"""Factor -> share of the images that are shown at a resolution lower by that factor or more.

Clients' cameras differ in resolution.
"""


def augment(
    images: torch.Tensor,  # (B, 3, h, w), any float range
    generator: torch.Generator,
    shift: float = 0.08,
    degrees: float = 10.0,
    scale: float = 0.1,
) -> torch.Tensor:
    """Apply a random affine map to each image and repeat the border pixels; returns the same shape and dtype.

    shift: the largest translation, in image widths. degrees: the largest rotation. scale: the largest relative zoom.
    """
    if not (count := len(images)):
        return images

    def uniform(bound: float, *shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * bound

    angle = torch.deg2rad(uniform(degrees))
    zoom = 1 + uniform(scale, 2)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * zoom[:, 0], -angle.sin() * zoom[:, 0]
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin() * zoom[:, 1], angle.cos() * zoom[:, 1]
    theta[:, :, 2] = uniform(2 * shift, 2)
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def vary_look(
    images: torch.Tensor,  # (B, 3, h, w) in [0, 1]
    generator: torch.Generator,
    contrast: float = 0.4,
    brightness: float = 0.25,
) -> torch.Tensor:
    """Change the contrast and brightness of each image's colours and its resolution at random (ours).

    The resolution is the image's own, a half or a quarter of it. Returns the same shape and dtype, in [0, 1].
    """
    count, size = len(images), images.shape[-2:]

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator).to(images)

    gain = 1 + (uniform(3, 1, 1) * 2 - 1) * contrast
    offset = (uniform(3, 1, 1) * 2 - 1) * brightness
    mean = images.mean((2, 3), keepdim=True)
    images = ((images - mean) * gain + mean + offset).clamp(0, 1)
    drawn, coarse = uniform(1, 1, 1), images
    for factor, share in COARSE_SHARES.items():
        pixels = F.avg_pool2d(images, factor)
        coarse = torch.where(drawn < share, F.interpolate(pixels, size, mode="bilinear"), coarse)
    return coarse
