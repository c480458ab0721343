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
    tiny: str = ""
    """The tiny autoencoder made for its published models' latents, one of `location.TINY_DECODERS`."""


FAMILIES = {
    "StableDiffusionPipeline": Entry("stable_diffusion", tiny="taesd"),
    "LatentConsistencyModelPipeline": Entry("stable_diffusion", opened_as="StableDiffusionPipeline", tiny="taesd"),
    "StableDiffusionXLPipeline": Entry("stable_diffusion_xl", tiny="taesdxl"),
    "StableDiffusion3Pipeline": Entry("sd3", patch=2, tiny="taesd3"),
    "SanaPipeline": Entry("sana", autoencoders=("AutoencoderDC",)),
    "PixArtAlphaPipeline": Entry("pixart", patch=2, tiny="taesd"),
    "PixArtSigmaPipeline": Entry("pixart", patch=2, tiny="taesdxl"),
    "FluxPipeline": Entry("flux", packed=2, patch=2, side=128, tiny="taef1"),
    "Flux2KleinPipeline": Entry("flux2_klein", autoencoders=("AutoencoderKLFlux2",), fold=2, side=64),
    "ZImagePipeline": Entry("z_image", patch=2, side=128, tiny="taef1"),
    "PRXPipeline": Entry("prx", patch=2, autoencoders=("AutoencoderKL", "AutoencoderDC")),
    "Lumina2Pipeline": Entry("lumina2", patch=2, tiny="taef1"),
    "QwenImagePipeline": Entry("qwen_image", autoencoders=("AutoencoderKLQwenImage",), packed=2, patch=2, side=128),
    "DiTPipeline": Entry("dit", "labels", any_size=False, tiny="taesd"),
    "DDPMPipeline": Entry("", "pixels", any_size=False),
    "DDIMPipeline": Entry("", "pixels", any_size=False),
}
"""The class that `model_index.json` names -> its entry."""
