"""What the server knows without any client: general images, and the models that clients start from (ours)."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from common.config.fields import RULES, Count

NUM_IMAGES = {"public": 20_000, "unguided": 3_000}
"""Kind of general images -> how many there are at most, unless the config says otherwise."""


@dataclass(frozen=True, config=RULES)
class GeneralConfig:
    """General knowledge: images of the run's classes that come from no client, and models that are trained on them."""

    warm_start: bool = True
    """Send every client a general model to start from: of `student-architecture` for its copy, or of its own
    architecture if it uploads no copy. The server trains it on general images, once for each architecture, and keeps it
    in a cache. Clients that refuse it start from their own initial weights."""
    general_images: Literal["public", "unguided"] = "public"
    """Where general images come from. `public`: labelled images of the folder `public-images`, or else those that come
    with the embedded data set; where there are none, as `unguided`. `unguided`: the diffusion model generates them from
    the classes' names alone."""
    public_images: str = ""
    """Folder of labelled public images on the server, laid out as `fedlmg-client check` takes it. Classes are found by
    name; images of other classes are ignored."""
    num_general_images: NonNegativeInt = 0
    """Most general images. 0 stands for 20,000 public ones, or for 3,000 unguided ones, but for no more of these than
    take about as long as the guided images."""
    general_updates: Count = 5400
    """Batches for which a general model is trained. One that then reads fewer than 80 % of held-out general images goes
    on for as many again, and keeps what that gains."""
    looks: Literal["none", "digits", "photos", "microscopy"] = "digits"
    """How general and synthetic images are varied in training. `none`: small shifts, turns and zooms alone. `digits`:
    also contrast, colour and resolution. `photos`: also hue, saturation, gamma, blur, crops and mirror images.
    `microscopy`: stronger colours, no crops, turned by any quarter, and mixed in pairs for the general models. A
    client's own images are shifted, turned, mirrored and cropped likewise, and keep their colours."""
    replay_megabytes: NonNegativeFloat = 6.0
    """Most MB (10**6 bytes) of general images that a client receives and trains on besides its own. 0 sends none."""

    def most_images(self, kind: str) -> int:
        """Most general images of a kind, `public` or `unguided`: where there are no public ones, the others serve."""
        return self.num_general_images or NUM_IMAGES[kind]
