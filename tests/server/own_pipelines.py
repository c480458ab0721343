"""An image as a family's own diffusers pipeline draws it, from the noise and the prompt that ours is given."""

import torch

from fedlmg_server.diffusion.families import packing
from fedlmg_server.diffusion.latent import LatentBackend
from tests.server import tiny_flow

PROMPT = "an image of cat"


def draw_by_own_pipeline(
    family: str, backend: LatentBackend, scale: float, noise: torch.Tensor, steps: int, output: str = "pt"
) -> torch.Tensor:
    """What the pipeline makes of noise (1, C, H, W); output: its own word for images in [0, 1], or `latent`."""
    given = {"num_inference_steps": steps, "output_type": output}
    if family in tiny_flow.FAMILIES:
        given |= {"height": tiny_flow.SIZE, "width": tiny_flow.SIZE}
    if family in ("sana", "pixart-alpha", "pixart-sigma", "prx"):
        given |= {"use_resolution_binning": False}
    if family == "sana":
        given |= {"complex_human_instruction": None}
    if family.startswith("pixart"):
        given |= {"clean_caption": False}
    if (family.startswith("flux-") and not family.startswith("flux-2")) or family == "qwen-image":
        noise = packing.pack(noise)
    if family == "qwen-image":
        given |= {"true_cfg_scale": scale, "negative_prompt": ""}
    elif family == "z-image":
        given |= {"guidance_scale": scale - 1}
    else:
        given |= {"guidance_scale": scale}
    if family != "prx":
        return backend.pipeline(prompt=PROMPT, latents=noise, **given).images
    states, mask = backend.condition(["cat"]).values()
    (empty, asked), (nothing, seen) = states.split(1), mask.split(1)
    given |= {"prompt_embeds": asked, "prompt_attention_mask": seen}
    given |= {"negative_prompt_embeds": empty, "negative_prompt_attention_mask": nothing}
    return backend.pipeline(latents=noise, **given).images
