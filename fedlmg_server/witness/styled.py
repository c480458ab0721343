"""Images in one client's look whose class the prompt alone decides: guided by statistics of all classes together.

With the moments of single classes, or guided towards labels, images would follow the labels that are to be judged.
"""

from dataclasses import replace

import torch

from common.config.synthesis import SynthesisConfig
from common.models import architectures, feature_statistics
from common.models.feature_statistics import FeatureStatistics
from common.upload import Upload
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.run import Run
from fedlmg_server.synthesis.generate import generate_batch, to_pixels
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.plan import PlannedImage, plan_images, split_into_batches
from fedlmg_server.synthesis.within_memory import WithinMemory

IMAGES_PER_CLASS = 8
MOST_IMAGES = 160
"""Of one client, unless it has more classes: each has one image at least."""
OWNER = "witness"
"""Stands before a client's name in the seeds of the images."""
GUIDANCE_STRENGTH, GUIDANCE_SCALE = 0.15, 6.0
"""Steps of half the usual length and twice the usual weight of the prompt: the class stays the prompt's. Chosen on seed
0 of the embedded digits."""


def draw_styled(backend: DiffusionBackend, run: Run, upload: Upload) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Images uint8 (N, 3, h, w) and labels (N,) in the upload's held classes; None without statistics to guide by.

    Raises
    ------
    ValueError: images that are not finite.
    """
    if (guidance := _guide(run, upload, backend.device)) is None:
        return None
    return _draw(backend, run, upload.held_class_names, f"{OWNER} {upload.client}", guidance)


def draw_plain(backend: DiffusionBackend, run: Run, class_names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unguided images uint8 (N, 3, h, w), in whatever looks the diffusion model knows, and labels (N,) in the classes.

    Raises
    ------
    ValueError: images that are not finite.
    """
    return _draw(backend, run, class_names, OWNER)


def _draw(
    backend: DiffusionBackend,
    run: Run,
    class_names: list[str],
    owner: str,
    guidance: ClassifierGuidance | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """owner: stands for a client's name in the seeds of the images."""
    config = _settings(run.config.synthesis)
    per_class = max(1, min(IMAGES_PER_CLASS, MOST_IMAGES // len(class_names)))
    planned = plan_images(run.config.seed, owner, class_names, per_class)

    def generate(part: list[PlannedImage]) -> torch.Tensor:
        return generate_batch(backend, guidance, part, class_names, config)

    within_memory = WithinMemory(generate, backend)
    batches = split_into_batches(planned, config.synthesis_batch_size)
    pixels = torch.cat([to_pixels(within_memory(batch)) for batch in batches])
    return pixels, torch.tensor([class_names.index(image.class_name) for image in planned])


def _settings(config: SynthesisConfig) -> SynthesisConfig:
    return replace(
        config,
        preset="default",
        classification_weight=0.0,
        statistics_weight=1.0,
        guidance_strength=GUIDANCE_STRENGTH,
        guidance_scale=GUIDANCE_SCALE,
    )


def load_copy(run: Run, upload: Upload) -> torch.nn.Module | None:
    """The upload's copy of the student, in evaluation mode on the run's device; None if it has none."""
    if (said := upload.manifest.student_copy) is None:
        return None
    size = upload.preprocess.image_size
    model = architectures.build(said.architecture, len(said.class_names), size, run.config.builders)
    model.load_state_dict(upload.student_copy)
    return model.float().to(run.device).eval()


def _guide(run: Run, upload: Upload, device: torch.device) -> ClassifierGuidance | None:
    """By the copy where there is one: it knows more looks than a net that was trained on one client's images, and so
    draws this client's better (measured)."""
    copy = load_copy(run, upload)
    moments: FeatureStatistics = feature_statistics.batch_norm_moments(copy) if copy else {}
    guided_by, moments = (copy, moments) if copy and moments else (upload.classifier(device), upload.statistics)
    guidance = ClassifierGuidance(guided_by, upload.preprocess, moments, 0.0, 1.0, by_class=False)
    return guidance if guidance.has_statistics else None
