"""Settings of guided synthesis, and the named sets of them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

PRESETS = {
    "exact": {
        "sampler": "ddpm",
        "num_inference_steps": 50,
        "classification_weight": 1.0,
        "statistics_weight": 0.1,
        "guidance_strength": 1.0,
        "guidance_step": "raw",
        "denoiser_passes": 2,
        "guidance_gradient": "full",
        "guidance_start": 0.0,
        "guidance_stop": 1.0,
        "class_statistics": False,
        "noise_editing_steps": 10,
        "noise_editing_strength": 0.1,
        "noise_editing_guidance_scale": 3.0,
        "min_confidence": 0.0,
    },
    "fast": {"num_inference_steps": 6, "guidance_stop": 0.5, "noise_editing_steps": 1},
}
"""`exact`: the authors' loop, with their sampler, steps and weights (`noise_editing_strength` is eta 1 times their loss
weight 0.1). `fast`: ours."""


@dataclass(frozen=True)
class SynthesisConfig:
    """Guided synthesis. Defaults: ours, measured on the embedded federation, where the paper's do not apply."""

    preset: str = "default"
    """Another set of defaults for the keys below: `exact` or `fast`. A key that is set otherwise wins."""
    diffusion_model: str = "digits"
    """`digits` or `emoji` (embedded), a diffusers folder, or a hub id."""
    diffusion_revision: str = ""
    """Branch, tag or commit of a hub id; empty: its main branch."""
    diffusion_variant: str = ""
    """Weight files to prefer, such as `fp16`; empty: the plain ones."""
    guidance_decoder: str = ""
    """Folder or hub id of a tiny autoencoder (TAESD) that decodes for gradients only; empty: the model's own."""
    images_per_class: int = 16
    """Images per class and client (paper, section 4.1: 30; fewer, so that the default run stays short)."""
    synthesis_batch_size: int = 50
    """Most images drawn at once; their number does not change them."""
    compile: bool = False
    """`torch.compile` of the denoiser and the decoders, when a batch's size first comes: minutes that pay off over
    thousands of images on a GPU."""
    sampler: str = "ddim"
    """`ddim`, `ddpm`, `dpm-solver++`, or `lcm` for latent consistency models."""
    num_inference_steps: int = 8
    guidance_scale: float = 3.0
    """Classifier-free guidance (paper: 3)."""
    classification_weight: float = 3.0
    statistics_weight: float = 0.1
    """Weight of the statistics loss in the guidance loss (paper, Eq. 9, appendix: 0.2; authors' code: 0.1)."""
    guidance_strength: float = 0.3
    """Length of a guidance step as a share of the noise estimate's norm."""
    guidance_step: str = "scale-free"
    """`scale-free`: steps as long as the strengths say (ours); `raw`: strengths times the gradient (paper)."""
    denoiser_passes: int = 1
    """Of a guided step: 1 (paper) or 2 (authors' code)."""
    guidance_gradient: str = "shortcut"
    """`full`: through the denoiser (paper, Eq. 10); `shortcut`: on the x_0 estimate only (MPGD)."""
    guidance_start: float = 0.0
    guidance_stop: float = 0.7
    """Guided part of the schedule, as fractions of its steps."""
    class_statistics: bool = True
    """An image follows the moments of its class where the client uploaded them (`statistics_by_class`), else those of
    all (ours; the paper: of all)."""
    noise_editing_steps: int = 2
    """M of Algorithm 1."""
    noise_editing_strength: float = 0.15
    """Length of a noise-editing step as a share of the noise's norm (eta, made scale-free)."""
    noise_editing_guidance_scale: float = 1.0
    """Classifier-free guidance of the estimate that noise editing improves; 1: none, for half the cost (ours)."""
    min_confidence: float = 0.2
    """Images whose guiding classifier gives the class asked for less than this are not learned from (ours)."""


def with_preset(config: SynthesisConfig) -> SynthesisConfig:
    """The settings with the preset's values for every key that stands at its own default."""
    return over(config, PRESETS.get(config.preset, {}))


def over(settings: Any, changes: dict[str, Any]) -> Any:
    """A settings dataclass with those changes that name one of its fields which stands at its default."""
    plain = type(settings)()
    names = {item.name for item in dataclasses.fields(settings)} & set(changes)
    return dataclasses.replace(
        settings, **{name: changes[name] for name in names if getattr(settings, name) == getattr(plain, name)}
    )
