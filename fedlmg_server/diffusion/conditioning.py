"""Conditioning of a denoiser: from class names to its keyword arguments, for each family of latent models.

Every result has 2 B rows: B rows without a class, for classifier-free guidance, then B rows with it. Results are cached
by class.
"""

import difflib
from collections.abc import Callable

import torch
from accelerate.utils import concatenate
from diffusers import DiffusionPipeline

from common.config import ConfigError
from fedlmg_server.diffusion.vocabulary import make_prompt, read_tokens

Arguments = dict
"""Keyword arguments of the denoiser: tensors (rows, ...) or dictionaries of tensors."""
Conditioning = Callable[[list[str]], Arguments]
"""From B class names to the arguments for 2 B rows."""


class Prompts:
    """Text prompts as conditioning.

    `encode` turns one prompt into arguments of one row. `tokenizer` is its first step.

    Raises
    ------
    ConfigError: the text encoder cannot tell two class names apart.
    """

    def __init__(self, encode: Callable[[str], Arguments], tokenizer: Callable):
        self._encode, self._tokenizer = encode, tokenizer
        self._encoded: dict[str, Arguments] = {}
        self._read: dict[tuple[int, ...], str] = {}

    def __call__(self, class_names: list[str]) -> Arguments:
        prompts = ["" for _ in class_names] + [make_prompt(name) for name in class_names]
        return concatenate([self._once(prompt) for prompt in prompts])

    @torch.no_grad()
    def _once(self, prompt: str) -> Arguments:
        if prompt not in self._encoded:
            tokens = read_tokens(self._tokenizer, prompt)
            if (other := self._read.setdefault(tokens, prompt)) != prompt:
                raise ConfigError(
                    f"the diffusion model cannot tell '{prompt}' from '{other}', whose first {len(tokens)} tokens are "
                    "equal: give one of the classes another name ('class-aliases')"
                )
            self._encoded[prompt] = self._encode(prompt)
        return self._encoded[prompt]


def stable_diffusion(pipeline: DiffusionPipeline) -> Prompts:
    """Stable Diffusion 1 and 2: the last hidden states of the text encoder."""

    def encode(prompt: str) -> Arguments:
        states, _ = pipeline.encode_prompt(prompt, pipeline.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states}

    return Prompts(encode, pipeline.tokenizer)


def stable_diffusion_xl(pipeline: DiffusionPipeline) -> Prompts:
    """Stable Diffusion XL: the states of both text encoders, the pooled state, and six numbers of size.

    The numbers are the size of the image, where it was cropped (nowhere), and the requested size.
    """
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    empty_is_zero = pipeline.config.force_zeros_for_empty_prompt

    def encode(prompt: str) -> Arguments:
        states, _, pooled, _ = pipeline.encode_prompt(
            prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if prompt == "" and empty_is_zero:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=states.dtype, device=pipeline.device)
        added = {"text_embeds": pooled, "time_ids": sizes}
        return {"encoder_hidden_states": states, "added_cond_kwargs": added}

    return Prompts(encode, pipeline.tokenizer)


def label_ids(class_names: list[str], vocabulary: dict[str, int]) -> list[int]:
    """The model's label for each of these classes.

    Raises
    ------
    ConfigError: the model does not know a class; the message gives the nearest one.
    """
    for name in class_names:
        if name not in vocabulary:
            nearest = difflib.get_close_matches(name, vocabulary, n=1, cutoff=0)
            known = f"its nearest is '{nearest[0]}'" if nearest else "it names no classes"
            raise ConfigError(f"the diffusion model has no class '{name}'; {known}: rename the class ('class-aliases')")
    return [vocabulary[name] for name in class_names]


def class_labels(pipeline: DiffusionPipeline) -> Conditioning:
    """DiT: the label that the pipeline's `id2label` gives each class; the last embedding stands for no class."""
    no_class = pipeline.transformer.config.num_embeds_ada_norm

    def labels(class_names: list[str]) -> Arguments:
        ids = [no_class for _ in class_names] + label_ids(class_names, pipeline.labels)
        return {"class_labels": torch.tensor(ids, device=pipeline.device)}

    return labels
