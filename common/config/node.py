"""What a client says of itself in its node config, and what every client decides about its own privacy."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from common.config.fields import RULES, Share

MAX_MEGAPIXELS = 90.0
"""The most million pixels of an image, unless its owner allows more."""
IMAGE_GIGABYTES = 32.0
"""The most GB of decoded images on a client's disk, unless its owner says otherwise."""


@dataclass(frozen=True, config=RULES)
class PrivacyConfig:
    """A client's own decisions about its privacy (ours)."""

    dp_epsilon: NonNegativeFloat = 0.0
    """Budget epsilon of differentially private training: DP-SGD by Opacus, without feature statistics in the upload.
    With a warm start BatchNorm keeps the start's moments, and of `both` classifiers the copy alone is trained, for a
    budget pays for one; without, GroupNorm takes BatchNorm's place. 0 turns it off. Needs the extra `privacy`."""
    dp_delta: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Delta of that budget. 0 stands for one tenth of one over the number of training images."""
    dp_max_grad_norm: PositiveFloat = 1.0
    """Norm to which the gradient of each image is clipped in private training."""
    max_membership_auc: Share = 1.0
    """Largest AUC of a membership attack by the loss on the client's own model: a client above it sends nothing. 0.5 is
    chance, and 1 never stops."""


@dataclass(frozen=True, config=RULES)
class NodeSettings(PrivacyConfig):
    """What one client says of itself. A real client names its images; a virtual one has a number."""

    name: str = ""
    """Name of the client, which the server learns. Without it, the name of its folder, or those of its table and the
    folder of that; for a virtual client, the name of its images."""
    data_path: str = ""
    """The client's images: a folder, a table or a list, as `fedlmg-client check` takes them. `dataset-path` is read as
    well."""
    allow_outside: bool = False
    """Follow links and table entries that leave the folder of the images. Without it such images are skipped."""
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS
    """Most million pixels of an image; a larger one is skipped, as it may be a decompression bomb. A JPEG may have four
    times as many, since it is decoded at reduced size."""
    cache_path: str = ""
    """Folder for checkpoints, the upload and the model that comes back. Without it, `~/.cache/fedlmg/NAME`."""
    image_gigabytes: NonNegativeFloat = IMAGE_GIGABYTES
    """Most GB (10**9 bytes) of decoded images below `cache-path`, for folders whose images would fill the memory. If
    they do not fit, every epoch decodes the files again."""
    architecture: str = ""
    """Architecture of the client's classifier; `auto` tries what this machine can train before the deadline. Without
    it, the run's `architectures` say."""
    initialisation: str = ""
    """Initial weights: `imagenet`, or a file on the client. Without it, the run's `initialisation` says."""
    warm_start: bool = True
    """Start from the general model that the server offers. `false` starts from the client's own initial weights."""
    upload: Literal["", "own", "student", "both"] = ""
    """Classifiers that the client uploads with a warm start. Without it, the run's `upload` says."""
    max_replay_megabytes: NonNegativeFloat = 100.0
    """Most MB (10**6 bytes) of general images that the client keeps of those that the server sends for replay; of more
    it keeps an even part. 0 keeps none."""
    share_evaluation: bool = True
    """Tell the server the accuracies of the models on the client's test images. `false` tells none."""
    partition_id: NonNegativeInt = 0
    """Number of a virtual client; Flower's simulation sets it."""
