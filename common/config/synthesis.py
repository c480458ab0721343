"""Settings of guided synthesis, the named sets of them, and the two methods of guidance."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, StringConstraints
from pydantic.dataclasses import dataclass

from common.config.fields import RULES, Count, Says, Share, Text
from common.labels.names import fold_name

Lora = Annotated[
    str, StringConstraints(pattern=r"^(.+@-?\d+(\.\d+)?)?$"), Says("FOLDER@scale, as in 'loras/x-rays@0.8', or empty")
]

CLASS = "{class}"
"""Stands for the class's name in a prompt."""
OR = "|"
"""Between several prompts of one class."""
PROMPT = f"an image of {CLASS}"
Prompt = Annotated[str, StringConstraints(pattern=r"\{class\}"), Says(f"a text with {CLASS} in it, as in '{PROMPT}'")]


@dataclasses.dataclass(frozen=True)
class GuidanceMethod:
    """How a guided step and noise editing are made: what the paper, its authors' code and we do differently."""

    raw_step: bool = False
    """A step as long as the gradient (paper), in place of one relative to the noise, which is scale-free (ours)."""
    denoiser_passes: int = 1
    """Passes of the denoiser in a guided step. 1: the noise estimate moves (paper). 2: x_t moves and the denoiser is
    asked again (authors' code)."""
    through_denoiser: bool = False
    """Gradient in x_t through the denoiser (paper, Eq. 10), in place of one in the x_0 estimate (MPGD)."""
    noise_editing_guidance_scale: float = 1.0
    """Classifier-free guidance of the estimate that noise editing improves. 1: none, at half the cost (ours)."""
    class_statistics: bool = True
    """An image follows the moments of its class where the client sent them (ours), in place of those of all classes
    (paper)."""


OURS = GuidanceMethod()
AUTHORS = GuidanceMethod(
    raw_step=True,
    denoiser_passes=2,
    through_denoiser=True,
    noise_editing_guidance_scale=3.0,
    class_statistics=False,
)

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {"num_inference_steps": 6, "guided_until": 0.38, "noise_editing_steps": 1},
    "authors": {
        "sampler": "ddpm",
        "num_inference_steps": 50,
        "classification_weight": 1.0,
        "statistics_weight": 0.1,
        "guidance_strength": 1.0,
        "guided_until": 1.0,
        "noise_editing_steps": 10,
        "noise_editing_strength": 0.1,
        "min_confidence": 0.0,
        "warm_start": False,
    },
    "photos": {
        "diffusion_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "images_per_class": 30,
        "num_inference_steps": 20,
        "image_size": 224,
        "architectures": "resnet18",
        "initialisation": "imagenet",
        "local_learning_rate": 0.005,
        "student_architecture": "resnet50",
        "student_initialisation": "imagenet",
        "student_epochs": 20,
        "student_learning_rate": 0.005,
        "looks": "photos",
        "warm_start": False,
    },
}
"""Defaults of other keys by preset. `fast`: ours. `photos`: for photographs of any size, with ImageNet weights in place
of a warm start, and the learning rates of the authors' code. `authors`: the authors' loop, with their sampler, steps
and weights (`noise_editing_strength` is eta 1 times their loss weight 0.1) and the method AUTHORS."""


@dataclass(frozen=True, config=RULES)
class SynthesisConfig:
    """Guided synthesis. Defaults are ours, measured on the embedded digits, where the paper's do not apply."""

    preset: Literal["default", "fast", "authors", "photos"] = "default"
    """Set of defaults for other keys. `fast` is a shorter synthesis. `authors` is the loop of the paper's authors,
    which takes raw steps of guidance through the denoiser, with two passes of the denoiser a step. `photos` is for
    photographs: 224 pixels, ImageNet weights, Stable Diffusion. A key that is set wins, and `fedlmg run` says so."""
    diffusion_model: Text = "digits"
    """Diffusion model that generates the images: `digits`, `emoji` or the flow-matching `digits-flow` (embedded), a
    diffusers folder, a hub id, or `repo@revision` for a branch, tag or commit of a hub id."""
    diffusion_size: NonNegativeInt = 0
    """Pixels of a side of the images that the model draws, for models that draw several sizes; 0: the model's own."""
    diffusion_lora: Lora = ""
    """LoRA weights for the denoiser and CLIP text encoders, a folder with one safetensors file, and how strongly they
    count, as in `loras/x-rays@0.8`. Needs the extra `lora`. Empty: none."""
    prompt: Prompt = PROMPT
    """Prompt for a class, with `{class}` where its name stands, such as `a white blood cell, {class}`. Of several
    between bars, as in `a photo of {class} | a drawing of {class}`, each image takes one by its seed. For diffusion
    models that take any text."""
    class_prompts: str = ""
    """Prompts of single classes in place of `prompt`, between semicolons, for names that say nothing:
    `n02085620=a photo of a chihuahua; C3=a slide of a tumour`. Several prompts of one class stand between bars. Case
    and blanks of a name never matter."""
    negative_prompt: str = ""
    """What images shall not show: classifier-free guidance leads away from it. Empty: from no prompt (paper)."""
    guidance_decoder: str = ""
    """Tiny autoencoder that decodes for gradients only: `taesd`, `taesdxl`, `taesd3` or `taef1`, each for its models'
    latents, a folder, or a hub id. Empty: the model's own."""
    images_per_class: Count = 16
    """Images per class and client (paper, section 4.1: 30; ours is smaller, so that the default run stays short)."""
    synthesis_batch_size: Count = 50
    """Most images generated at once. It does not change the images."""
    compile: bool = False
    """Compile the denoiser and the decoders with `torch.compile`. That takes minutes for each size of a batch, and
    pays off over thousands of images on a GPU."""
    sampler: Literal["ddim", "ddpm", "dpm-solver++", "lcm"] = "ddim"
    """Sampler of the diffusion model. `lcm` is for latent consistency models. Flow-matching models take `ddim`,
    which is Euler's step for them, and `dpm-solver++`."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 8
    """Steps of the sampler."""
    guidance_scale: NonNegativeFloat = 3.0
    """Scale of classifier-free guidance by the prompt (paper: 3); 1 is none."""
    classification_weight: NonNegativeFloat = 3.0
    """Weight of the classification loss in the guidance loss (authors' code: 1)."""
    statistics_weight: NonNegativeFloat = 0.1
    """Weight of the statistics loss in the guidance loss (paper, Eq. 9, appendix: 0.2; authors' code: 0.1)."""
    guidance_strength: NonNegativeFloat = 0.3
    """Length of a guidance step as a share of the noise estimate's norm. With the preset `authors`, factor of the
    gradient."""
    guided_until: Share = 0.54
    """Steps are guided from the first on, until this share of the noisy latent is signal: 1 - sigma of a flow, and the
    same signal-to-noise ratio of other models. 1: all steps (authors' code). On Stable Diffusion's noise schedule, 0.54
    is 70 % of the steps and 0.38 half of them."""
    noise_editing_steps: NonNegativeInt = 2
    """Steps that edit the initial noise before sampling (M of the paper's Algorithm 1)."""
    noise_editing_strength: NonNegativeFloat = 0.15
    """Length of a noise-editing step as a share of the noise's norm. With the preset `authors`, factor of the gradient
    (eta in the paper)."""
    min_confidence: Share = 0.2
    """Least probability that the guiding classifier gives the class asked for; images below it are not learned from
    (ours)."""

    def __post_init__(self) -> None:
        parse_prompts(self.class_prompts)
        for prompt in split_prompts(self.prompt):
            if CLASS not in prompt:
                raise ValueError(f"config key 'prompt' must have {CLASS} in each of its prompts, not so in '{prompt}'")

    @property
    def method(self) -> GuidanceMethod:
        """How guidance is done, which the preset alone decides."""
        return AUTHORS if self.preset == "authors" else OURS


def parse_prompts(text: str) -> dict[str, list[str]]:
    """The config key `class-prompts` as a table: folded class name -> its prompts.

    Raises
    ------
    ValueError: a part is not of the form `class=prompt`, or a class is named twice with other prompts.
    """
    table: dict[str, list[str]] = {}
    for part in filter(str.strip, text.split(";")):
        name, _, said = (side.strip() for side in part.partition("="))
        if not name or not (prompts := split_prompts(said)):
            raise ValueError(f"config key 'class-prompts' must hold pairs 'class=prompt', and holds '{part.strip()}'")
        if table.setdefault(fold_name(name), prompts) != prompts:
            raise ValueError(
                f"config key 'class-prompts' names '{name}' twice: keep one of them, and put '{OR}' between the "
                "prompts of a class"
            )
    return table


def split_prompts(text: str) -> list[str]:
    """The prompts in a text, between bars."""
    return [part.strip() for part in text.split(OR) if part.strip()]
