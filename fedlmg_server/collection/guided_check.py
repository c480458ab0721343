"""A guided backward pass as synthesis takes it, before anything is drawn: its losses and gradients must be finite."""

import torch

from common.config import Config
from common.upload import Upload
from fedlmg_server.synthesis.generate import guide_by
from fedlmg_server.synthesis.guidance import gradient

NUM_NOISE = 6
"""Images of noise, beside a black and a white one."""


class GuidanceError(ValueError):
    """An upload cannot guide; the message says why, in a clause."""


def check_guidance(upload: Upload, config: Config) -> None:
    """Check the gradient of the guidance loss in eight images, which ask for the client's classes in turn.

    A forward pass does not do: a moment may overflow, or a gradient, where the classifier's output is still a number.

    Raises
    ------
    GuidanceError: the pass fails, or its result is not finite.
    """
    size = upload.preprocess.image_size
    noise = torch.rand(NUM_NOISE, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = torch.cat([noise, torch.zeros(1, 3, size, size), torch.ones(1, 3, size, size)]).requires_grad_()
    asked = [upload.class_names.index(name) for name in upload.held_class_names]
    numbers = torch.arange(len(images))
    try:
        guidance = guide_by(upload, config.synthesis, images.device)
        losses = guidance.full_loss(torch.tensor(asked)[numbers % len(asked)], numbers % guidance.num_clusters)(images)
        gradients = gradient(losses, images)
    except Exception as error:  # A builder of the operator's may raise anything.
        raise GuidanceError(f"its classifier fails in a guided backward pass on noise: {error}") from None
    for what, values in (("losses", losses), ("gradients", gradients)):
        if not values.isfinite().all():
            raise GuidanceError(
                f"it cannot guide: the {what} of a guided pass on noise must be finite, but some are not; train its "
                "classifier again"
            )
