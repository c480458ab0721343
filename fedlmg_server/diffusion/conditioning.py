"""What a denoiser is told to draw: class names to its keyword arguments, for each family of latent models.

Every result has 2 B rows: B without a class, for classifier-free guidance, then B with it. Nothing is computed twice
for a class.
"""

import difflib
from collections.abc import Callable

import torch
from diffusers import DiffusionPipeline
from torch.utils._pytree import tree_map

from common.config import ConfigError

PROMPT = "an image of {}"
"""The prompt of a class (paper, section 3; the authors' code)."""

Arguments = dict
"""Keyword arguments of the denoiser: tensors (rows, ...), or dicts of them."""
Conditioning = Callable[[list[str]], Arguments]


class Prompts:
    """Text prompts; `encode` turns one prompt into arguments of one row, `tokenizer` is the first step of it."""

    def __init__(self, encode: Callable[[str], Arguments], tokenizer: Callable):
        self._encode, self._tokenizer = encode, tokenizer
        self._encoded: dict[str, Arguments] = {}
        self._read: dict[tuple[int, ...], str] = {}

    def __call__(self, class_names: list[str]) -> Arguments:
        prompts = ["" for _ in class_names] + [PROMPT.format(name.lower()) for name in class_names]
        return tree_map(lambda *rows: torch.cat(rows), *(self._once(prompt) for prompt in prompts))

    @torch.no_grad()
    def _once(self, prompt: str) -> Arguments:
        if prompt not in self._encoded:
            tokens = tuple(self._tokenizer(prompt, truncation=True).input_ids)
            if (other := self._read.setdefault(tokens, prompt)) != prompt:
                raise ConfigError(
                    f"the diffusion model reads '{prompt}' as it reads '{other}', by their first {len(tokens)} tokens: "
                    "give one of the classes another name (`class-aliases`)"
                )
            self._encoded[prompt] = self._encode(prompt)
        return self._encoded[prompt]


def stable_diffusion(pipeline: DiffusionPipeline) -> Prompts:
    """Stable Diffusion 1 and 2: the text encoder's last states."""

    def encode(prompt: str) -> Arguments:
        states, _ = pipeline.encode_prompt(prompt, pipeline.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states}

    return Prompts(encode, pipeline.tokenizer)


def stable_diffusion_xl(pipeline: DiffusionPipeline) -> Prompts:
    """Stable Diffusion XL: states of two text encoders, the pooled one, and the image's size without cropping."""
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    width = pipeline.text_encoder_2.config.projection_dim
    empty_is_zero = pipeline.config.force_zeros_for_empty_prompt

    def encode(prompt: str) -> Arguments:
        states, _, pooled, _ = pipeline.encode_prompt(
            prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if prompt == "" and empty_is_zero:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        sizes = pipeline._get_add_time_ids((side, side), (0, 0), (side, side), states.dtype, width)
        added = {"text_embeds": pooled, "time_ids": sizes.to(pipeline.device)}
        return {"encoder_hidden_states": states, "added_cond_kwargs": added}

    return Prompts(encode, pipeline.tokenizer)


def label_ids(class_names: list[str], vocabulary: dict[str, int]) -> list[int]:
    """The model's labels of these classes.

    Raises
    ------
    ConfigError: a class the model does not know (names the nearest).
    """
    for name in class_names:
        if name not in vocabulary:
            nearest = "".join(difflib.get_close_matches(name, vocabulary, n=1, cutoff=0)) or "none: it names no classes"
            raise ConfigError(f"the diffusion model has no class '{name}'; the nearest is {nearest}")
    return [vocabulary[name] for name in class_names]


def class_labels(pipeline: DiffusionPipeline) -> Conditioning:
    """DiT: the label that the pipeline's `id2label` gives to a class name; its last embedding stands for no class."""
    no_class = pipeline.transformer.config.num_embeds_ada_norm

    def labels(class_names: list[str]) -> Arguments:
        ids = [no_class for _ in class_names] + label_ids(class_names, pipeline.labels)
        return {"class_labels": torch.tensor(ids, device=pipeline.device)}

    return labels
