"""Generate one client's missing images, batch by batch, and score them by its classifier."""

import torch

from common.config.synthesis import SynthesisConfig
from common.upload import Upload
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.run import Run
from fedlmg_server.synthesis import plan, store, traces
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
    ValueError: images that are not finite.
    """
    folder, config = run.image_folder(upload, method), run.config.synthesis
    rank, world_size = share
    batches = plan.split_into_batches(store.planned_images(run, upload), config.synthesis_batch_size)
    guidance = guide_by(upload, config, backend.device)
    guide = guidance if method == "fedlmg" else None
    losses: list[tuple[int, Trace]] = []

    def generate(part: list[PlannedImage]) -> torch.Tensor:
        trace: Trace = {}
        images = generate_batch(backend, guide, part, upload.class_names, config, trace)
        losses.append((len(part), trace))
        return images

    within_memory = WithinMemory(generate)
    generated = 0
    for batch in batches[rank::world_size]:
        if store.are_saved(batch, folder):
            continue
        images = within_memory(batch)
        with store.finishing():
            pixels = to_pixels(images)
            found = score_batch(batch, pixels, backend.check_safety(images), guidance, upload.class_names)
            store.save_batch(folder, f"scores-{rank}.jsonl", batch, pixels, found)
            traces.append_losses(folder / f"losses-{rank}.jsonl", losses)
            losses.clear()
        generated += len(batch)
    return generated


def generate_batch(
    backend: DiffusionBackend,
    guidance: ClassifierGuidance | None,
    batch: list[PlannedImage],
    class_names: list[str],
    config: SynthesisConfig,
    trace: Trace | None = None,
) -> torch.Tensor:
    """Images (B, 3, h, w) in [0, 1] of one batch of a client's plan; its losses go to `trace`."""
    backend.scheduler.set_timesteps(config.num_inference_steps)
    x_T = backend.initial_noise([image.seed for image in batch])
    condition = backend.condition([image.class_name for image in batch])
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
    is_safe: list[bool],
    guidance: ClassifierGuidance,
    class_names: list[str],
) -> list[Score]:
    """What the client's classifier makes of each image."""
    probabilities = guidance.classifier(guidance.preprocess(pixels.float() / 255)).softmax(1).cpu()
    found = []
    for image, row, safe in zip(batch, probabilities, is_safe, strict=True):
        asked = class_names.index(image.class_name)
        confidence, agrees = round(row[asked].item(), 4), bool(row.argmax() == asked)
        found.append(Score(image.file, image.class_name, confidence, agrees, safe))
    return found
