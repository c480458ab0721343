"""One untrained pipeline of every supported family: the true classes, as small as they go."""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from fedlmg_server.diffusion.pretraining import tiny_pipeline

CLASS_NAMES = ["cat", "dog"]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NO_EXTRAS = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
    )


def _text_encoder(kind: type):
    tokenizer = tiny_pipeline._character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=24, **sizes, **ids
    )
    return kind(config), tokenizer


def _denoiser(text_width: int, **changes) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=2,
        norm_num_groups=8,
        **changes,
    )


def _stable_diffusion(scheduler, kind: type = StableDiffusionPipeline, **changes) -> DiffusionPipeline:
    text_encoder, tokenizer = _text_encoder(CLIPTextModel)
    parts = {"vae": _autoencoder(), "text_encoder": text_encoder, "tokenizer": tokenizer}
    return kind(unet=_denoiser(16, **changes), scheduler=scheduler, **parts, **NO_EXTRAS)


def _stable_diffusion_xl() -> StableDiffusionXLPipeline:
    first, tokenizer = _text_encoder(CLIPTextModel)
    second, _ = _text_encoder(CLIPTextModelWithProjection)
    denoiser = _denoiser(
        32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    return StableDiffusionXLPipeline(
        vae=_autoencoder(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=denoiser,
        scheduler=EulerDiscreteScheduler(**BETAS),
    )


def _dit() -> DiTPipeline:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        norm_num_groups=4,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=5,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    torch.nn.init.normal_(transformer.proj_out_2.weight, std=0.2)
    return DiTPipeline(transformer, _autoencoder(), DDIMScheduler())


def _pixel(kind: type, scheduler, **changes) -> DiffusionPipeline:
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
        **changes,
    )
    return kind(unet, scheduler)


FAMILIES = {
    "stable-diffusion-1": lambda: _stable_diffusion(PNDMScheduler(skip_prk_steps=True, **BETAS)),
    "stable-diffusion-2": lambda: _stable_diffusion(DDIMScheduler(prediction_type="v_prediction", **BETAS)),
    "latent-consistency": lambda: _stable_diffusion(
        LCMScheduler(**BETAS), LatentConsistencyModelPipeline, time_cond_proj_dim=16
    ),
    "stable-diffusion-xl": _stable_diffusion_xl,
    "dit": _dit,
    "pixel": lambda: _pixel(DDPMPipeline, DDPMScheduler()),
    "pixel-with-classes": lambda: _pixel(DDIMPipeline, DDIMScheduler(), num_class_embeds=2),
}


def save_without_terminal_signal(folder: Path) -> Path:
    """Stable Diffusion 2 on a schedule that ends in pure noise."""
    torch.manual_seed(0)
    schedule = DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", **BETAS
    )
    _stable_diffusion(schedule).save_pretrained(folder)
    return folder


def save_with_safety_checker(folder: Path, is_strict: bool) -> Path:
    """Stable Diffusion with a tiny checker of the true class, which finds every image unsafe, or none."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=sizes, projection_dim=16))
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        torch.nn.init.constant_(weights, -2.0 if is_strict else 2.0)
    for embeddings in (checker.concept_embeds, checker.special_care_embeds):
        torch.nn.init.normal_(embeddings)
    pipeline = FAMILIES["stable-diffusion-1"]()
    extractor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pipeline.register_modules(safety_checker=checker, feature_extractor=extractor)
    pipeline.save_pretrained(folder)
    return folder


def save(family: str, folder: Path) -> Path:
    """Build, save in diffusers' own format, and return the folder; a copy of the first one of this process."""
    made, random = _save_once(family)
    torch.set_rng_state(random)  # as if it had been built anew
    shutil.copytree(made.name, folder, dirs_exist_ok=True)
    return folder


@cache
def _save_once(family: str) -> tuple[TemporaryDirectory, torch.Tensor]:
    """The folder, which lives as long as the process, and the state of the random numbers after it."""
    made = TemporaryDirectory(prefix="pipeline-")
    folder = Path(made.name)
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder)
    if family == "dit":
        index = json.loads((folder / "model_index.json").read_text())
        index["id2label"] = {"0": "ant", "1": "cat, house cat", "2": "dog", "3": "eel", "4": "fox"}
        (folder / "model_index.json").write_text(json.dumps(index))
    if family == "pixel-with-classes":
        (folder / "class_names.json").write_text(json.dumps(CLASS_NAMES))
    return made, torch.get_rng_state()
