"""One untrained pipeline of every transformer family: the true classes, as small as they go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PRXPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.models.transformers.transformer_prx import PRXTransformer2DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5GemmaConfig,
)
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from fedlmg_server.diffusion.pretraining import tiny_pipeline

WIDTH = 16
CHAT = "{% for message in messages %}<|user|>{{ message['content'] }}<|assistant|>{% endfor %}"


def _tokenizer() -> PreTrainedTokenizerFast:
    """Of bytes, with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<eos>", "<|user|>", "<|assistant|>", "<|im_start|>", "<|im_end|>", *alphabet]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, [], unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", chat_template=CHAT, model_max_length=512
    )


VOCABULARY = 6 + 256
SIZES = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}


def _clip(kind: type = CLIPTextModelWithProjection) -> tuple[Any, CLIPTokenizer]:
    tokenizer = tiny_pipeline._character_tokenizer()
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(
        **SIZES | {"vocab_size": len(tokenizer)},
        projection_dim=WIDTH,
        num_attention_heads=2,
        max_position_embeddings=24,
        **ids,
    )
    return kind(config), tokenizer


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=8,
            d_ff=WIDTH,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def _gemma() -> Gemma2Model:
    return Gemma2Model(Gemma2Config(**SIZES, **HEADS, **IDS, query_pre_attn_scalar=8))


def _kl(channels: int, kind: type = AutoencoderKL, **changes: Any) -> Any:
    """Two levels: a latent is two pixels wide."""
    return kind(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=16,
        **changes,
    )


SCALED = {"scaling_factor": 0.7, "shift_factor": 0.1, "use_quant_conv": False, "use_post_quant_conv": False}


def _stable_diffusion_3(with_t5: bool = True) -> StableDiffusion3Pipeline:
    (first, tokenizer), (second, _) = _clip(), _clip()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
    )
    t5 = T5EncoderModel(
        T5Config(vocab_size=VOCABULARY, d_model=2 * WIDTH, d_kv=8, d_ff=WIDTH, num_layers=2, num_heads=2)
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_kl(4, **SCALED),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=t5 if with_t5 else None,
        tokenizer_3=_tokenizer() if with_t5 else None,
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
    return SanaPipeline(_tokenizer(), _gemma(), vae, transformer, scheduler)


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
    return kind(tokenizer=_tokenizer(), text_encoder=_t5(), vae=_kl(4), transformer=transformer, scheduler=scheduler)


def _flux(dev: bool) -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=dev,
        axes_dims_rope=(4, 4, 8),
    )
    clip, tokenizer = _clip(CLIPTextModel)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=dev),
        vae=_kl(4, **SCALED),
        text_encoder=clip,
        tokenizer=tokenizer,
        text_encoder_2=_t5(),
        tokenizer_2=_tokenizer(),
        transformer=transformer,
    )


def _flux_2_klein(is_distilled: bool) -> Flux2KleinPipeline:
    layers = {"num_hidden_layers": 28}
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = _kl(4, AutoencoderKLFlux2)
    torch.nn.init.normal_(vae.bn.running_mean, std=0.2)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**SIZES | layers, **HEADS, **IDS)),
        tokenizer=_tokenizer(),
        transformer=transformer,
        is_distilled=is_distilled,
    )


def _z_image() -> ZImagePipeline:
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[512, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_kl(4, **SCALED),
        text_encoder=Qwen3Model(Qwen3Config(**SIZES, **HEADS, **IDS)),
        tokenizer=_tokenizer(),
        transformer=transformer,
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
        tokenizer=_tokenizer(),
        vae=_kl(4, **SCALED),
        default_sample_size=512,
    )


def _lumina_2() -> Lumina2Pipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(512, 32, 32),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=_kl(4, **SCALED),
        text_encoder=_gemma(),
        tokenizer=_tokenizer(),
    )


def _qwen_image() -> QwenImagePipeline:
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 2.0, 0.5, 1.5],
    )
    text = {**SIZES, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    config = Qwen2_5_VLConfig(
        text_config=text | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        vision_config=vision,
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=_tokenizer(),
        transformer=transformer,
    )


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-3": _stable_diffusion_3,
    "stable-diffusion-3-without-t5": lambda: _stable_diffusion_3(with_t5=False),
    "sana": _sana,
    "pixart-alpha": lambda: _pixart(PixArtAlphaPipeline, sample_size=128),
    "pixart-sigma": lambda: _pixart(PixArtSigmaPipeline, sample_size=8),
    "flux-dev": lambda: _flux(dev=True),
    "flux-schnell": lambda: _flux(dev=False),
    "flux-2-klein": lambda: _flux_2_klein(is_distilled=False),
    "flux-2-klein-distilled": lambda: _flux_2_klein(is_distilled=True),
    "z-image": _z_image,
    "prx": _prx,
    "lumina-2": _lumina_2,
    "qwen-image": _qwen_image,
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
