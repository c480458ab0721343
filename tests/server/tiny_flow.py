"""One untrained pipeline of every transformer family: the true classes, as small as they go."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PRXPipeline,
    SanaPipeline,
    SanaTransformer2DModel,
)
from diffusers.models.transformers.transformer_prx import PRXTransformer2DModel
from transformers import T5GemmaConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from tests.server.tiny_joint_attention import flux, flux_2_klein, lumina_2, qwen_image, stable_diffusion_3, z_image
from tests.server.tiny_parts import (
    HEADS,
    IDS,
    SCALED,
    SIZES,
    WIDTH,
    make_autoencoder,
    make_gemma,
    make_t5,
    make_tokenizer,
)


def _sana() -> SanaPipeline:
    transformer = SanaTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    return SanaPipeline(make_tokenizer(), make_gemma(), vae, transformer, scheduler)


def _pixart(kind: type, sample_size: int) -> DiffusionPipeline:
    transformer = PixArtTransformer2DModel(
        sample_size=sample_size,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        num_attention_heads=3,
        attention_head_dim=8,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        norm_num_groups=4,
    )
    torch.nn.init.normal_(transformer.scale_shift_table)
    scheduler = DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    return kind(
        tokenizer=make_tokenizer(),
        text_encoder=make_t5(),
        vae=make_autoencoder(4),
        transformer=transformer,
        scheduler=scheduler,
    )


def _t5_gemma() -> T5GemmaConfig:
    half = {**SIZES, **HEADS, **IDS, "query_pre_attn_scalar": 8}
    return T5GemmaConfig(encoder=half, decoder=half)


def _prx() -> PRXPipeline:
    transformer = PRXTransformer2DModel(
        in_channels=4, context_in_dim=WIDTH, hidden_size=16, num_heads=2, depth=1, axes_dim=[4, 4]
    )
    return PRXPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=T5GemmaEncoder(_t5_gemma().encoder),
        tokenizer=make_tokenizer(),
        vae=make_autoencoder(4, **SCALED),
        default_sample_size=512,
    )


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-3": stable_diffusion_3,
    "stable-diffusion-3-without-t5": lambda: stable_diffusion_3(with_t5=False),
    "sana": _sana,
    "pixart-alpha": lambda: _pixart(PixArtAlphaPipeline, sample_size=128),
    "pixart-sigma": lambda: _pixart(PixArtSigmaPipeline, sample_size=8),
    "flux-dev": lambda: flux(dev=True),
    "flux-schnell": lambda: flux(dev=False),
    "flux-2-klein": lambda: flux_2_klein(is_distilled=False),
    "flux-2-klein-distilled": lambda: flux_2_klein(is_distilled=True),
    "z-image": z_image,
    "prx": _prx,
    "lumina-2": lumina_2,
    "qwen-image": qwen_image,
}
SIZE = 32
"""Pixels of a side of the images."""


def make(family: str) -> DiffusionPipeline:
    """An untrained pipeline whose output depends on its input: what starts at zero does not."""
    torch.manual_seed(0)
    pipeline = FAMILIES[family]()
    for parameter in pipeline.transformer.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(family: str, folder: Path) -> Path:
    """Build, save in diffusers' own format, and return the folder."""
    make(family).save_pretrained(folder)
    if family == "prx":
        # As published: diffusers takes the encoder's half of it.
        _t5_gemma().save_pretrained(folder / "text_encoder")
    return folder
