"""LoRA weights of a tiny pipeline, saved as diffusers saves them."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict


def save(pipeline: DiffusionPipeline, folder: Path, alpha: int = 4, **given) -> Path:
    """Random weights for the attention of its denoiser, strong enough to be seen."""
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    torch.manual_seed(0)
    denoiser.add_adapter(
        LoraConfig(r=2, lora_alpha=alpha, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    )
    weights = {f"{part}_lora_layers": get_peft_model_state_dict(denoiser)}
    metadata = {f"{part}_lora_adapter_metadata": denoiser.peft_config["default"].to_dict()}
    type(pipeline).save_lora_weights(str(folder), **weights, **metadata, **given)
    return folder
