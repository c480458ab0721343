"""Every kind of pipeline that is opened: which adapter knows it, and what its small files must say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One kind of pipeline, as far as it is known without the libraries that open it."""

    adapter: str
    """The module of this package whose class `Adapter` knows the pipeline; empty: it works on pixels."""
    conditioned_on: str = "prompt"
    """`prompt`, `labels` or `pixels`."""
    opened_as: str = ""
    """The class of diffusers that opens it, if it is another one than the index names."""
    autoencoders: tuple[str, ...] = ("AutoencoderKL", "AutoencoderTiny")
    fold: int = 1
    """Side of the square of autoencoder latents that the sampler takes for one."""
    packed: int = 1
    """Side of the square of latents that the denoiser takes as one input, below each other as channels."""
    patch: int = 1
    """Side of the square of latents that is one token: a picture's side in latents is a multiple of it."""
    side: int | None = None
    """Side of a picture in latents, where no config names it."""
    any_size: bool = True
    """Whether the denoiser takes pictures of another size than its own."""


FLUX_2 = ("AutoencoderKLFlux2",)
FAMILIES = {
    "StableDiffusionPipeline": Entry("stable_diffusion"),
    "LatentConsistencyModelPipeline": Entry("stable_diffusion", opened_as="StableDiffusionPipeline"),
    "StableDiffusionXLPipeline": Entry("stable_diffusion_xl"),
    "DiTPipeline": Entry("dit", "labels", any_size=False),
    "DDPMPipeline": Entry("", "pixels", any_size=False),
    "DDIMPipeline": Entry("", "pixels", any_size=False),
}
"""The class that `model_index.json` names -> its entry."""
