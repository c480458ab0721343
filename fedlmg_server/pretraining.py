"""`fedlmg pretrain`: train a diffusion pipeline on a folder of labelled images, and measure it for its model card.

An evaluation classifier measures the samples. It is trained on held-out real images that the pipeline never saw.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from common.config import ConfigError
from common.config.node import MAX_MEGAPIXELS
from common.config.synthesis import PROMPT
from common.datasets.embedded import registry
from common.datasets.labeled_images import LabeledImages
from common.datasets.readers import folders
from common.storage.atomic import write_bytes, write_json
from common.vision.looks import PROFILES, vary
from common.vision.metrics import accuracy
from fedlmg_server.diffusion.pretraining import train
from fedlmg_server.diffusion.pretraining.config import OBJECTIVES, PretrainConfig
from fedlmg_server.diffusion.pretraining.perceptual import Perceptual
from fedlmg_server.evaluation import appearance, evaluation_classifier
from fedlmg_server.trainer import TrainingSet

NUM_PUBLIC_IMAGES = 60_000
NUM_HELD_OUT_IMAGES = 12_000
SAMPLES_PER_CLASS = 100
VERSIONS = 4
"""Looks of each training image where looks are varied; all are made, and encoded, before the denoiser is trained."""
PART = 512
"""Images whose look is varied at once."""
LEAST_UPDATES = 900
"""Of an evaluation classifier."""
SIZE_STEP = 8


@dataclass(frozen=True)
class PublicImages:
    """Training and held-out images, uint8 (N, 3, h, w) with labels int64 (N,), and where they come from."""

    class_names: list[str]
    train: LabeledImages
    held_out: LabeledImages
    description: str


@dataclass(frozen=True)
class Quality:
    """Quality of a pipeline, measured on unguided samples with 20 steps and classifier-free guidance 3."""

    num_samples: int
    read_as_asked: float
    """Share of samples in which the evaluation classifier finds the requested class, in [0, 1]."""
    judge_accuracy: float
    """Accuracy of the evaluation classifier on held-out real images that it was not trained on, in [0, 1]."""
    kid: float
    """Kernel inception distance between samples and held-out real images, in the evaluation classifier's features."""
    kid_deviation: float
    """Standard deviation of `kid` over subsets."""
    kid_of_real: float
    """Kernel inception distance between two halves of the held-out real images: the best value that can be reached."""
    sharpness: float
    """Of the samples, as a share of the held-out real images'."""
    sharpness_of_decoded: float
    """Of held-out real images behind the autoencoder, likewise: the best value that the denoiser can reach."""
    spread_of_looks: float
    """Of the samples' mean colours, as a share of the held-out real images'."""


def load_public_images(data: str, image_size: int, max_megapixels: float = MAX_MEGAPIXELS) -> PublicImages:
    """Load the public images of an embedded dataset by name, or an image folder, resized to `image_size` pixels.

    A folder is laid out as `fedlmg-client check` takes it; links out of it are followed. What is skipped is printed.
    """
    if data in registry.EMBEDDED:
        dataset = registry.find_dataset(data)
        train = dataset.make_public_images(NUM_PUBLIC_IMAGES, seed=0)
        held_out = dataset.make_public_images(NUM_HELD_OUT_IMAGES, seed=1, purpose="public-held-out")
        description = f"{NUM_PUBLIC_IMAGES} {dataset.public_sources}"
        return PublicImages(list(dataset.class_names), train, held_out, description)
    folder = folders.load(Path(data).expanduser(), image_size, allow_outside=True, max_megapixels=max_megapixels)
    for problem in folder.problems:
        print(f"skipped {problem}", flush=True)
    train, held_out = folder.splits["train"].read(), folder.splits["test"].read()
    description = f"{len(train)} images in {len(folder.class_names)} classes from the folder '{Path(data).name}'"
    return PublicImages(folder.class_names, train, held_out, description)


def pretrain(
    data: str,
    out: Path,
    config: PretrainConfig,
    image_size: int = 32,
    start: Path | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Quality:
    """Train a pipeline in the folder `out`, or continue its training; then measure it and write its model card.

    Raises
    ------
    ConfigError: `image_size` is no multiple of 8, or the config names an objective or a profile of looks that is none.
    """
    if not 1 <= config.parts <= config.batch_size:
        raise ConfigError(f"--batch-parts must be from 1 to {config.batch_size}, got {config.parts}: choose another")
    for option, value, known in (("objective", config.objective, OBJECTIVES), ("looks", config.looks, PROFILES)):
        if value not in known:
            raise ConfigError(f"--{option} must be one of {', '.join(known)}, got {value}: choose another")
    if image_size < SIZE_STEP or image_size % SIZE_STEP:
        raise ConfigError(f"--image-size must be a multiple of {SIZE_STEP}, got {image_size}: choose another")
    if config.latent_channels is not None and config.latent_channels < 1:
        raise ConfigError(f"--latent-channels must be at least 1, got {config.latent_channels}: choose another")
    images = vary_looks(load_public_images(data, image_size, max_megapixels), config)
    perceptual = _make_perceptual(images, config) if config.perceptual_weight and config.vae_steps else None
    pipeline = train.train(images.train.images, images.train.labels, images.class_names, out, config, start, perceptual)
    quality = measure_quality(pipeline, images, config)
    write_json(out / "quality.json", asdict(quality))
    write_bytes(out / "MODEL_CARD.md", render_model_card(images, config, quality, out).encode())
    return quality


def vary_looks(images: PublicImages, config: PretrainConfig) -> PublicImages:
    """Each training image in `VERSIONS` looks, and each held-out one in one; as they are for the profile `none`."""
    if config.looks == "none":
        return images
    generator = torch.Generator().manual_seed(config.seed)

    def varied(part: LabeledImages, versions: int) -> LabeledImages:
        looks = [
            (vary(shown.float() / 255, config.looks, generator) * 255).round().to(torch.uint8)
            for _ in range(versions)
            for shown in part.images.split(PART)
        ]
        return LabeledImages(torch.cat(looks), part.labels.repeat(versions))

    train, held_out = varied(images.train, VERSIONS), varied(images.held_out, 1)
    description = f"{images.description}, in {VERSIONS} looks each (profile `{config.looks}`)"
    return replace(images, train=train, held_out=held_out, description=description)


def _make_perceptual(images: PublicImages, config: PretrainConfig) -> Perceptual:
    """By a classifier of the training images: the evaluation classifier must not have taught what it measures."""
    seen = TrainingSet(images.train.images, images.train.labels)
    epochs = max(1, _least_epochs(len(seen.images)))
    known = evaluation_classifier.train(seen, len(images.class_names), config.seed, epochs, _looks(config))
    return Perceptual(known.classifier, known.preprocess)


def _least_epochs(num_images: int) -> int:
    """Of an evaluation classifier: a small folder's images are seen more often."""
    return LEAST_UPDATES * evaluation_classifier.TRAINING.student_batch_size // num_images


def _looks(config: PretrainConfig) -> str:
    """Of a classifier's training images."""
    return "digits" if config.looks == "none" else config.looks


def measure_quality(pipeline, images: PublicImages, config: PretrainConfig) -> Quality:
    """Sample every class and compare the samples with held-out real images, whose looks were varied as well."""
    by, judge_accuracy, test = _train_evaluation_classifier(images, config)
    samples = train.sample(pipeline, images.class_names, SAMPLES_PER_CLASS, config.seed)
    samples = (samples * 255).round().to(torch.uint8)
    labels = torch.arange(len(images.class_names)).repeat(SAMPLES_PER_CLASS)
    half = len(test.images) // 2
    held_out, rest = by.features(test.images).split([half, len(test.images) - half])
    kid, deviation = evaluation_classifier.kernel_distance(held_out, by.features(samples))
    of_real, _ = evaluation_classifier.kernel_distance(held_out, rest)
    decoded = train.decode_again(pipeline, test.images[: len(samples)])
    sharp, spread = appearance.sharpness(test.images), appearance.spread_of_looks(test.images)
    return Quality(
        num_samples=len(samples),
        read_as_asked=accuracy(by.reads(samples), labels),
        judge_accuracy=judge_accuracy,
        kid=kid,
        kid_deviation=deviation,
        kid_of_real=of_real,
        sharpness=appearance.sharpness(samples) / sharp,
        sharpness_of_decoded=appearance.sharpness(decoded) / sharp,
        spread_of_looks=appearance.spread_of_looks(samples) / spread,
    )


def _train_evaluation_classifier(
    images: PublicImages, config: PretrainConfig
) -> tuple[evaluation_classifier.EvaluationClassifier, float, LabeledImages]:
    """Train an evaluation classifier on five sixths of the held-out images.

    Returns the classifier, its accuracy on the remaining images in [0, 1], and these images.
    """
    count = len(images.held_out.labels) * 5 // 6
    seen = TrainingSet(images.held_out.images[:count], images.held_out.labels[:count])
    rest = LabeledImages(images.held_out.images[count:], images.held_out.labels[count:])
    epochs = max(evaluation_classifier.EPOCHS, _least_epochs(count))
    by = evaluation_classifier.train(seen, len(images.class_names), config.seed, epochs, _looks(config))
    return by, accuracy(by.reads(rest.images), rest.labels), rest


def render_model_card(images: PublicImages, config: PretrainConfig, quality: Quality, out: Path) -> str:
    taken = json.loads((out / "training.json").read_text(encoding="utf-8"))
    steps = {name: taken[name] for name in ("vae_steps", "denoiser_steps")}
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    settings = "\n".join(f"| `{name}` | {value} |" for name, value in (asdict(config) | steps).items())
    return f"""# A small text-to-image diffusion model

A `StableDiffusionPipeline` for images of {images.train.images.shape[-1]} pixels, prompt "{PROMPT}".

- **Trained on** {images.description}.
- **With** `{" ".join(["fedlmg", *sys.argv[1:]])}`, PyTorch {torch.__version__}, {hardware}.
- **For** {taken["seconds"] / 60:.0f} minutes of training in all.
- **Quality** of {quality.num_samples} unguided samples (20 steps, guidance scale 3): an independent classifier finds
  the requested class in {quality.read_as_asked:.1%} of them. The classifier was trained on held-out real images, and
  its accuracy on other held-out images is {quality.judge_accuracy:.1%}.
- **KID** between samples and held-out images, in that classifier's features: {quality.kid:.4f} +-
  {quality.kid_deviation:.4f}; between two halves of the held-out images: {quality.kid_of_real:.4f}.
- **Sharpness** (differences of neighbouring pixels): {quality.sharpness:.0%} of the held-out images', which keep
  {quality.sharpness_of_decoded:.0%} of it behind the autoencoder. Mean colours spread {quality.spread_of_looks:.0%}
  as far as theirs.
- **Not for** anything but generating these classes: {", ".join(images.class_names)}.

![samples](samples.png)

| setting | value |
| --- | --- |
{settings}
"""
