"""LoRA weights of a tiny pipeline, saved as diffusers saves them."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model


def save(pipeline: DiffusionPipeline, folder: Path, alpha: int = 4, encoders: tuple[str, ...] = (), **given) -> Path:
    """Random weights for the attention of its denoiser and of these text encoders, strong enough to be seen."""
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    torch.manual_seed(0)
    for name in (part, *encoders):
        module = getattr(pipeline, name)
        targets = ["to_q", "to_k", "to_v"] if name == part else ["q_proj", "k_proj", "v_proj"]
        config = LoraConfig(r=2, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)
        added = inject_adapter_in_model(config, module).named_parameters()
        weights = {place.replace(".default", ""): weight for place, weight in added if ".lora_" in place}
        given |= {f"{name}_lora_layers": weights, f"{name}_lora_adapter_metadata": config.to_dict()}
    type(pipeline).save_lora_weights(str(folder), **given)
    return folder
