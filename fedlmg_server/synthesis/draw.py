"""Draw one client's missing images and their scores into the workspace."""

import json
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torchvision.transforms.v2.functional import to_pil_image

from common.config import SynthesisConfig
from common.files import write_bytes
from common.upload import Upload
from common.workspace import Workspace
from fedlmg_server import plan
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.plan import Drawing
from fedlmg_server.synthesis.guidance import ClassifierGuidance, Trace
from fedlmg_server.synthesis.noise_editing import edit_noise
from fedlmg_server.synthesis.sampler import SamplingSettings, sample

Share = tuple[int, int]
"""(rank, world size): this process draws every world-size-th missing batch, from number rank."""


@dataclass(frozen=True)
class Score:
    """What a client's classifier makes of an image drawn for it, as saved: probability of the class asked for, in
    [0, 1], and whether that class is the most probable."""

    file: str
    class_name: str
    confidence: float
    agrees: bool


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
        per_batch=config.statistics_reduction == "per-batch",
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
    batches = [batch for batch in batches if not plan.is_drawn(batch, folder)]
    guidance = guidance_by(upload, config, backend.device)
    for batch in batches:
        trace: Trace = {}
        images = draw_batch(backend, guidance if method == "fedlmg" else None, batch, upload.class_names, config, trace)
        save_batch(folder, f"scores-{rank}.jsonl", batch, images, guidance, upload.class_names)
        if trace:
            _save_losses(folder / f"losses-{rank}.jsonl", len(batch), trace)
    return sum(map(len, batches))


def draw_batch(
    backend: DiffusionBackend,
    guidance: ClassifierGuidance | None,
    batch: list[Drawing],
    class_names: list[str],
    config: SynthesisConfig,
    trace: Trace | None = None,
) -> torch.Tensor:
    """Images (B, 3, h, w) in [0, 1] of one batch of a client's drawings; its losses go to `trace`."""
    backend.scheduler.set_timesteps(config.num_inference_steps, device=backend.device)
    x_T = backend.initial_noise([drawing.seed for drawing in batch])
    condition = backend.condition([drawing.class_name for drawing in batch])
    # Not the initial noise's own generator, whose first numbers would come again.
    generators = [torch.Generator().manual_seed(~drawing.seed & (2**63 - 1)) for drawing in batch]
    if guidance is None:
        return sample(backend, x_T, condition, settings(config), generators=generators)
    targets = torch.tensor([class_names.index(drawing.class_name) for drawing in batch], device=backend.device)
    if guidance.has_statistics:
        steps, strength = config.noise_editing_steps, config.noise_editing_strength
        raw, scale = config.guidance_step == "raw", config.noise_editing_guidance_scale
        x_T = edit_noise(backend, x_T, condition, guidance.statistics_only(targets, trace), steps, strength, raw, scale)
    return sample(backend, x_T, condition, settings(config), guidance.full_loss(targets, trace), generators)


@torch.no_grad()
def save_batch(
    folder: Path,
    scores_file: str,
    batch: list[Drawing],
    images: torch.Tensor,
    guidance: ClassifierGuidance,
    class_names: list[str],
) -> None:
    """Write a batch: first the scores, then the images, so that an image on disk always has its score."""
    pixels = (images * 255).round().to(torch.uint8)
    probabilities = guidance.classifier(guidance.preprocess(pixels.float() / 255)).softmax(1).cpu()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / scores_file, "a") as scores:
        scores.write("\n")
        for drawing, row in zip(batch, probabilities, strict=True):
            asked = class_names.index(drawing.class_name)
            file = str(drawing.path(folder).relative_to(folder))
            score = Score(file, drawing.class_name, round(row[asked].item(), 4), bool(row.argmax() == asked))
            scores.write(json.dumps(score.__dict__) + "\n")
    for drawing, image in zip(batch, pixels.cpu(), strict=True):
        buffer = BytesIO()
        to_pil_image(image).save(buffer, "png")
        write_bytes(drawing.path(folder), buffer.getvalue())


def _save_losses(file: Path, num_images: int, trace: Trace) -> None:
    with open(file, "a") as losses:
        means = {kind: [round(value, 5) for value in torch.stack(steps).tolist()] for kind, steps in trace.items()}
        losses.write("\n" + json.dumps({"images": num_images, **means}) + "\n")


def read_losses(folder: Path) -> list[dict]:
    """A client's batches, oldest first in each process: `images`, their number, and the losses at each step by kind."""
    batches = []
    for file in sorted(folder.glob("losses-*.jsonl")):
        for line in file.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                batches.append(json.loads(line))
    return batches


def newest_losses(workspace: Workspace, uploads: list[Upload], method: str) -> dict[str, dict[str, float]]:
    """Client -> kind of loss -> its value at the last step of the newest batch, for the client drawn for last."""
    files = [file for upload in uploads for file in workspace.synthetic(upload.client, method).glob("losses-*.jsonl")]
    if not files:
        return {}
    newest = max(files, key=lambda file: file.stat().st_mtime_ns).parent
    client = next(upload.client for upload in uploads if workspace.synthetic(upload.client, method) == newest)
    batches = read_losses(newest) or [{}]
    return {client: {kind: steps[-1] for kind, steps in batches[-1].items() if kind != "images"}}


def read_scores(folder: Path) -> dict[str, Score]:
    """The score of each image file of a client's synthetic folder; a line that a crash cut short is passed over."""
    scores = {}
    for file in sorted(folder.glob("scores-*.jsonl")):
        for line in file.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                score = Score(**json.loads(line))
                scores[score.file] = score
    return scores
