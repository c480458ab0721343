"""A Stable Diffusion pipeline that is small enough for a laptop's CPU; every part has the class of the real one.

Images of 32 pixels, and of 64, become latents (4, 8, 8), or of more channels. The text encoder reads characters, so
every class name that is made of `CHARACTERS` and not too long has its own prompt (`conditioning.Prompts` rejects the
others). The prompt enters every block by cross-attention and also as a scale and shift, pooled together with the time
step. In so few training steps, cross-attention alone hardly learned the prompt (measured).
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fedlmg_server.diffusion.pretraining.config import LATENT_CHANNELS

PROMPT_WORDS = ("an", "image", "of")
"""The words of every prompt; each is one token, so that the class name is a large part of its prompt."""
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_.,'&()/+"
"""The characters that the text encoder knows."""
MAX_PROMPT_TOKENS = 24
TEXT_WIDTH = 64
LARGEST_AT_A_QUARTER = 32
"""Pixels of an image whose latents have a quarter of its side. Those of larger ones have an eighth, as Stable
Diffusion's: the denoiser of 64 pixels then costs as much as that of 32."""


def build_pipeline(
    image_size: int = 32,
    channels: tuple[int, int] = (64, 96),
    seed: int = 0,
    latent_channels: int = LATENT_CHANNELS,
) -> StableDiffusionPipeline:
    """An untrained pipeline; `channels` are those of the denoiser at full and at half latent resolution."""
    torch.manual_seed(seed)
    tokenizer = _character_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_PROMPT_TOKENS,
            initializer_factor=4.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # With CLIP's own 0.02 (and factor 1), the denoiser cannot tell prompts apart that differ in one character.
    embedding: Any = text_encoder.get_input_embeddings()
    torch.nn.init.normal_(embedding.weight, std=1.0)
    widths = (16, 32, 64) if image_size <= LARGEST_AT_A_QUARTER else (16, 32, 64, 64)
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        latent_channels=latent_channels,
        norm_num_groups=16,
        mid_block_add_attention=False,
        sample_size=image_size,
    )
    unet = UNet2DConditionModel(
        sample_size=image_size // 2 ** (len(widths) - 1),
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler("v-prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_scheduler(objective: str) -> Any:
    """The noise schedule of one of the `OBJECTIVES`, as a scheduler with which the pipeline samples by itself.

    Of the two that know flow matching, this one also has what `StableDiffusionPipeline` asks of a scheduler.
    """
    if objective == "flow":
        return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def _character_tokenizer() -> CLIPTokenizer:
    """A tokenizer of single characters and the prompt's own words.

    Its tokens are start, end, each character inside a word and at the end of a word, and the prompt's words.
    """
    tokens = ["<|startoftext|>", "<|endoftext|>", *CHARACTERS, *(f"{character}</w>" for character in CHARACTERS)]
    merges = ["#version: 0.2"]
    for word in PROMPT_WORDS:
        *front, last = list(word)
        joined, *pieces = [*front, f"{last}</w>"]
        for piece in pieces:
            merges.append(f"{joined} {piece}")
            tokens.append(joined := joined + piece)
    with TemporaryDirectory() as folder:
        vocabulary_file, merges_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary_file.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
        merges_file.write_text("\n".join(merges) + "\n", encoding="utf-8")
        CLIPTokenizer(str(vocabulary_file), str(merges_file)).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_PROMPT_TOKENS)
