"""Light augmentation for small images: it moves and turns them a little and never mirrors them (a digit has a side)."""

import torch
import torch.nn.functional as F


def augment(
    images: torch.Tensor,  # (B, 3, h, w), any float range
    generator: torch.Generator,
    shift: float = 0.08,
    degrees: float = 10.0,
    scale: float = 0.1,
) -> torch.Tensor:
    """Each image under its own random affine map; `shift` in image widths, borders repeat. Same shape and dtype."""
    count = len(images)

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
