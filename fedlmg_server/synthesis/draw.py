"""Draw one client's missing images and their scores into the workspace."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch
from torchvision.transforms.v2.functional import to_pil_image

from common.config.synthesis import SynthesisConfig
from common.storage.atomic import write_bytes
from common.upload import Upload
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.synthesis import plan, scores, traces
from fedlmg_server.synthesis.guidance import ClassifierGuidance, Trace
from fedlmg_server.synthesis.noise_editing import edit_noise
from fedlmg_server.synthesis.plan import Drawing
from fedlmg_server.synthesis.sampler import SamplingSettings, sample
from fedlmg_server.synthesis.scores import Score
from fedlmg_server.workspace import Workspace

Share = tuple[int, int]
"""(rank, world size): this process draws what is missing of every world-size-th batch, from number rank."""


def settings(config: SynthesisConfig) -> SamplingSettings:
    return SamplingSettings(
        config.num_inference_steps,
        config.guidance_scale,
        config.guidance_strength,
        config.guidance_gradient == "full",
        config.guidance_start,
        config.guidance_stop,
        config.guidance_step == "raw",
        config.denoiser_passes,
    )


def guidance_by(upload: Upload, config: SynthesisConfig, device: torch.device) -> ClassifierGuidance:
    return ClassifierGuidance.of_upload(
        upload,
        device,
        classification_weight=config.classification_weight,
        statistics_weight=config.statistics_weight,
        by_class=config.class_statistics,
    )


def draw_client(
    backend: DiffusionBackend,
    upload: Upload,
    workspace: Workspace,
    config: SynthesisConfig,
    run_seed: int,
    method: str = "fedlmg",
    share: Share = (0, 1),
) -> int:
    """Draw what is missing; returns the number of images drawn. Only the method `fedlmg` is guided."""
    folder = workspace.synthetic(upload.client, method)
    planned = plan.drawings(run_seed, upload.client, upload.class_names, config.images_per_class)
    rank, world_size = share
    batches = plan.batches(planned, config.synthesis_batch_size)[rank::world_size]
    guidance = guidance_by(upload, config, backend.device)
    guide = guidance if method == "fedlmg" else None

    losses: list[tuple[int, Trace]] = []

    def draw(drawings: list[Drawing]) -> torch.Tensor:
        trace: Trace = {}
        images = draw_batch(backend, guide, drawings, upload.class_names, config, trace)
        losses.append((len(drawings), trace))
        return images

    within_memory = WithinMemory(draw)
    drawn = 0
    for batch in batches:
        if plan.is_drawn(batch, folder):
            continue
        images = within_memory(batch)
        with finishing():
            save_batch(folder, f"scores-{rank}.jsonl", batch, images, guidance, upload.class_names, backend)
            traces.append(folder / f"losses-{rank}.jsonl", losses)
            losses.clear()
        drawn += len(batch)
    return drawn


@contextmanager
def finishing() -> Iterator[None]:
    """A polite kill waits for the end of the block, so that what is being written is whole."""
    arrived = []
    # A mask would not do: it holds for one thread, and the signal comes to any.
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if arrived:
        signal.raise_signal(signal.SIGTERM)


class WithinMemory:
    """Draws a batch at once, or in parts as large as the GPU's memory was found to hold."""

    def __init__(self, draw: Callable[[list[Drawing]], torch.Tensor]):
        self.draw = draw
        self.most: int | None = None

    def __call__(self, batch: list[Drawing]) -> torch.Tensor:
        """Images (B, 3, h, w).

        Raises
        ------
        torch.OutOfMemoryError: not even for one image.
        """
        images = []
        while batch:
            part = batch[: self.most]
            try:
                images.append(self.draw(part))
                batch = batch[len(part) :]
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            torch.cuda.empty_cache()
            self.most = len(part) // 2
            print(f"out of memory with {len(part)} images at once: going on with {self.most}", flush=True)
        return torch.cat(images)


def draw_batch(
    backend: DiffusionBackend,
    guidance: ClassifierGuidance | None,
    batch: list[Drawing],
    class_names: list[str],
    config: SynthesisConfig,
    trace: Trace | None = None,
) -> torch.Tensor:
    """Images (B, 3, h, w) in [0, 1] of one batch of a client's drawings; its losses go to `trace`."""
    backend.scheduler.set_timesteps(config.num_inference_steps)
    x_T = backend.initial_noise([drawing.seed for drawing in batch])
    condition = backend.condition([drawing.class_name for drawing in batch])
    # Not the initial noise's own generator, whose first numbers would come again.
    generators = [torch.Generator().manual_seed(~drawing.seed & (2**63 - 1)) for drawing in batch]
    if guidance is None:
        return sample(backend, x_T, condition, settings(config), generators=generators)
    targets = torch.tensor([class_names.index(drawing.class_name) for drawing in batch], device=backend.device)
    # All clusters are equally frequent, and the cluster of an image depends on its own seed alone.
    clusters = torch.tensor([drawing.seed % guidance.num_clusters for drawing in batch], device=backend.device)
    if guidance.has_statistics:
        steps, strength = config.noise_editing_steps, config.noise_editing_strength
        raw, scale = config.guidance_step == "raw", config.noise_editing_guidance_scale
        loss = guidance.statistics_only(targets, clusters, trace)
        x_T = edit_noise(backend, x_T, condition, loss, steps, strength, raw, scale)
    return sample(backend, x_T, condition, settings(config), guidance.full_loss(targets, clusters, trace), generators)


@torch.no_grad()
def save_batch(
    folder: Path,
    scores_file: str,
    batch: list[Drawing],
    images: torch.Tensor,
    guidance: ClassifierGuidance,
    class_names: list[str],
    backend: DiffusionBackend,
) -> None:
    """Write a batch: first the scores, then the images, so that an image on disk always has its score.

    Raises
    ------
    ValueError: images that are not finite.
    """
    if not images.isfinite().all():
        raise ValueError("images are not finite numbers: take smaller guidance steps, or another diffusion model")
    pixels = (images * 255).round().to(torch.uint8)
    probabilities = guidance.classifier(guidance.preprocess(pixels.float() / 255)).softmax(1).cpu()
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for drawing, row, safe in zip(batch, probabilities, backend.safe(images), strict=True):
        asked = class_names.index(drawing.class_name)
        confidence, agrees = round(row[asked].item(), 4), bool(row.argmax() == asked)
        found.append(Score(drawing.file, drawing.class_name, confidence, agrees, safe))
    scores.append(folder / scores_file, found)
    for drawing, image in zip(batch, pixels.cpu(), strict=True):
        buffer = BytesIO()
        to_pil_image(image).save(buffer, "png")
        write_bytes(drawing.path(folder), buffer.getvalue())
