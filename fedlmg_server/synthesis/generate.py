"""Generate one client's missing images, batch by batch, and score them by its classifier."""

from pathlib import Path

import torch

from common.config.synthesis import SynthesisConfig
from common.upload import Upload
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.quarantine import ClientFault
from fedlmg_server.run import Run
from fedlmg_server.synthesis import incidents, plan, scores, store, traces
from fedlmg_server.synthesis.guidance import ClassifierGuidance, Trace
from fedlmg_server.synthesis.noise_editing import edit_noise
from fedlmg_server.synthesis.plan import PlannedImage
from fedlmg_server.synthesis.sampler import SamplingSettings, sample
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.synthesis.within_memory import WithinMemory

Share = tuple[int, int]
"""(rank, world size): this process generates what is missing of every world-size-th batch, from number rank."""


def sampling_settings(config: SynthesisConfig) -> SamplingSettings:
    return SamplingSettings(
        config.num_inference_steps,
        config.guidance_scale,
        config.guidance_strength,
        config.guided_until,
        config.method,
    )


def guide_by(upload: Upload, config: SynthesisConfig, device: torch.device) -> ClassifierGuidance:
    """Guidance by one client's classifier, as the config weighs its losses."""
    return ClassifierGuidance.of_upload(
        upload,
        device,
        classification_weight=config.classification_weight,
        statistics_weight=config.statistics_weight,
        by_class=config.method.class_statistics,
    )


def generate_for_client(
    backend: DiffusionBackend, run: Run, upload: Upload, method: str = "fedlmg", share: Share = (0, 1)
) -> int:
    """Generate and save what is missing; returns the number of new images. Only the method `fedlmg` is guided.

    Raises
    ------
    ClientFault: something of the client's failed, or the first images, as many as it has classes, are not finite.
    """
    folder, config, workspace = run.image_folder(upload, method), run.config.synthesis, run.workspace
    rank, world_size = share
    scores_file = scores.file_of(folder, rank)
    batches = plan.split_into_batches(store.planned_images(run, upload), config.synthesis_batch_size)
    with incidents.drawing(workspace, upload.client, 0):
        guidance = guide_by(upload, config, backend.device)
    guide = guidance if method == "fedlmg" else None
    losses: list[tuple[int, Trace]] = []

    def generate(part: list[PlannedImage]) -> torch.Tensor:
        trace: Trace = {}
        images = generate_batch(backend, guide, part, upload.class_names, config, trace)
        losses.append((len(part), trace))
        return images

    within_memory = WithinMemory(generate, backend)
    generated = 0
    for number in range(rank, len(batches), world_size):
        batch = batches[number]
        if store.are_saved(batch, folder):
            continue
        if incidents.has_failed(workspace, upload.client):
            break
        with incidents.drawing(workspace, upload.client, number + 1):
            images, is_finite = blacken(within_memory(batch))
            pixels = to_pixels(images)
            found = score_batch(batch, pixels, is_finite, backend.check_safety(images), guidance, upload.class_names)
        with store.finishing():
            store.save_batch(folder, scores_file, batch, pixels, found)
            traces.append_losses(traces.file_beside(scores_file), losses)
            losses.clear()
        generated += len(batch)
        if not any(score.finite for score in found):
            _check_hope(upload, folder)
    return generated


def _check_hope(upload: Upload, folder: Path) -> None:
    """
    Raises
    ------
    ClientFault: no image is finite so far, and there are as many as the client has classes.
    """
    known = scores.read_scores(folder).values()
    if len(known) >= len(upload.held_class_names) and not any(score.finite for score in known):
        reason = f"its first {len(known)} images are all rejected, as not finite: its classifier cannot guide"
        raise ClientFault({upload.client: reason})


def generate_batch(
    backend: DiffusionBackend,
    guidance: ClassifierGuidance | None,
    batch: list[PlannedImage],
    class_names: list[str],
    config: SynthesisConfig,
    trace: Trace | None = None,
) -> torch.Tensor:
    """Images (B, 3, h, w) in [0, 1] of one batch of a client's plan; its losses go to `trace`."""
    backend.set_timesteps(config.num_inference_steps)
    seeds = [image.seed for image in batch]
    x_T, condition = backend.initial_noise(seeds), backend.condition([image.class_name for image in batch], seeds)
    # Not the initial noise's own generator, whose first numbers would come again.
    generators = [torch.Generator().manual_seed(~image.seed & (2**63 - 1)) for image in batch]
    if guidance is None:
        return sample(backend, x_T, condition, sampling_settings(config), generators=generators)
    targets = torch.tensor([class_names.index(image.class_name) for image in batch], device=backend.device)
    # All clusters are equally frequent, and the cluster of an image depends on its own seed alone.
    clusters = torch.tensor([image.seed % guidance.num_clusters for image in batch], device=backend.device)
    if guidance.has_statistics:
        steps, strength = config.noise_editing_steps, config.noise_editing_strength
        loss = guidance.statistics_only(targets, clusters, trace)
        x_T = edit_noise(backend, x_T, condition, loss, steps, strength, config.method)
    full_loss = guidance.full_loss(targets, clusters, trace)
    return sample(backend, x_T, condition, sampling_settings(config), full_loss, generators)


def blacken(images: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
    """Images (B, 3, h, w), those that are not finite black; and whether each was finite."""
    is_finite = images.isfinite().flatten(1).all(1)
    return images.where(is_finite[:, None, None, None], 0), is_finite.tolist()


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, h, w) of images in [0, 1].

    Raises
    ------
    ValueError: images that are not finite.
    """
    if not images.isfinite().all():
        raise ValueError("images are not finite numbers: take smaller guidance steps, or another diffusion model")
    return (images * 255).round().to(torch.uint8)


@torch.no_grad()
def score_batch(
    batch: list[PlannedImage],
    pixels: torch.Tensor,  # uint8 (B, 3, h, w)
    is_finite: list[bool],
    is_safe: list[bool],
    guidance: ClassifierGuidance,
    class_names: list[str],
) -> list[Score]:
    """What the client's classifier makes of each image."""
    probabilities = guidance.classifier(guidance.preprocess(pixels.float() / 255)).softmax(1).cpu()
    found = []
    for image, row, finite, safe in zip(batch, probabilities, is_finite, is_safe, strict=True):
        if not finite or not row.isfinite().all():
            found.append(Score(image.file, image.class_name, 0.0, agrees=False, safe=safe, finite=False))
            continue
        asked = class_names.index(image.class_name)
        confidence, agrees = round(row[asked].item(), 4), bool(row.argmax() == asked)
        found.append(Score(image.file, image.class_name, confidence, agrees, safe))
    return found
