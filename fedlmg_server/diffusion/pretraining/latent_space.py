"""The latents of a trained autoencoder: computed for many images, and standardised for the denoiser."""

from typing import Any

import torch

ENCODE_BATCH_SIZE = 512


@torch.no_grad()
def standardise_latents(vae: Any, mean: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give every latent channel mean 0 and standard deviation 1 over posteriors `mean`, `std` (N, C, H, W).

    Returns the new means and standard deviations. The affine map is folded into the autoencoder's 1 x 1 convolutions,
    so decoded images stay the same. Stable Diffusion only scales its latents. With a small autoencoder that leaves an
    offset, and the detail drowns in noise (ours).
    """
    shift = mean.mean((0, 2, 3))
    scale = (mean.var((0, 2, 3)) + std.square().mean((0, 2, 3))).sqrt()
    channels, per_channel = len(shift), (1, -1, 1, 1)
    encoder, decoder = vae.quant_conv, vae.post_quant_conv
    to_vae = {"device": encoder.weight.device}
    encoder.weight[:channels] /= scale.to(**to_vae)[:, None, None, None]
    encoder.bias[:channels] = (encoder.bias[:channels] - shift.to(**to_vae)) / scale.to(**to_vae)
    encoder.bias[channels:] -= 2 * scale.log().to(**to_vae)
    decoder.bias += decoder.weight[:, :, 0, 0] @ shift.to(**to_vae)
    decoder.weight *= scale.to(**to_vae).view(per_channel)
    vae.register_to_config(scaling_factor=1.0)
    return (mean - shift.view(per_channel)) / scale.view(per_channel), std / scale.view(per_channel)


@torch.no_grad()
def encode_images(vae: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior means and standard deviations of images uint8 (N, 3, h, w): unscaled, (N, C, H, W) each, on the CPU."""
    vae.eval()
    means, stds = [], []
    for part in images.split(ENCODE_BATCH_SIZE):
        posterior = vae.encode(part.to(vae.device).float() / 127.5 - 1).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    return torch.cat(means), torch.cat(stds)
