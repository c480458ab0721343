"""Settings of `fedlmg pretrain`, in a module of their own so that reading them imports no diffusion library."""

from dataclasses import dataclass

OBJECTIVES = ("v-prediction", "flow")
"""`v-prediction`: the velocity of variance-preserving noise (Salimans and Ho, 2022). `flow`: noise less image, on the
straight line between the two (Lipman et al., 2023)."""
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class PretrainConfig:
    """Steps are optimiser steps; learning rates are the peaks of a cosine schedule after `warmup_steps`."""

    objective: str = "v-prediction"
    """What the denoiser learns: a value of `OBJECTIVES`."""
    seed: int = 0
    batch_size: int = 64
    vae_steps: int = 2000
    vae_learning_rate: float = 2e-3
    denoiser_steps: int = 15_000
    denoiser_learning_rate: float = 1e-3
    warmup_steps: int = 200
    latent_channels: int | None = None
    """Of the autoencoder. None: `LATENT_CHANNELS`, or as many as the pipeline that training starts from has."""
    perceptual_weight: float = 0.0
    """The weight of `perceptual.Perceptual` in the autoencoder's loss."""
    kl_weight: float = 1e-5
    """The weight of the autoencoder's KL term, for each latent value."""
    condition_dropout: float = 0.1
    """The share of training prompts that are left empty, for classifier-free guidance."""
    ema_decay: float = 0.9995
    checkpoint_seconds: float = 120.0
    mixed_precision: str = "no"
    """`no`, or `bf16` on hardware that supports it."""
    hours: float = 0.0
    """About how long to train in all, in place of the numbers of steps; an eighth of it trains the autoencoder, nothing
    where `vae_steps` is 0. 0: for the numbers of steps."""
    parts: int = 1
    """Parts of a batch that are trained one after the other, where memory is short."""
    looks: str = "none"
    """How the look of the images is varied: a profile of `common.vision.looks`; `none` leaves them as they are."""
