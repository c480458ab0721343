"""The engine at Stable Diffusion 1.5's shape, randomly initialised, 512 pixels, a ResNet-18 at 224, on a GPU; each
line is JSON, the last one whole. The authors' loop runs in the same number format, on the same device, in the same run.

uv run python -m tests.bench.bench_gpu [--batch 16] [--compile authors]
uv run python -m tests.bench.bench_gpu --tiny        # the script itself, on any machine: its figures mean nothing
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import CLIPTextConfig, CLIPTextModel

from common.config import Config
from common.config.synthesis import SynthesisConfig
from common.models import architectures, feature_statistics
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.latent import LatentBackend
from fedlmg_server.diffusion.noise_schedule import make_scheduler
from fedlmg_server.synthesis.generate import generate_batch
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.plan import plan_images
from tests.bench.reference import ReferenceLoop

CLASS_NAMES = [str(digit) for digit in range(10)]
PRESETS = ("authors", "default", "fast")
MATRIX = 8192
FEW_STEPS = {"num_inference_steps": 2, "noise_editing_steps": 1}
LARGEST_TRIED = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="images generated at once")
    parser.add_argument("--compile", nargs="*", default=[], choices=PRESETS, help="presets to measure compiled, too")
    parser.add_argument("--tiny", action="store_true", help="a small pipeline, on any machine")
    arguments = parser.parse_args()
    if not (arguments.tiny or torch.cuda.is_available()):
        raise SystemExit("no GPU is here: --tiny runs the script without one")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        build(arguments.tiny).save_pretrained(folder)
        for result in measure(Path(folder), arguments, device):
            print(json.dumps(result), flush=True)


def measure(folder: Path, arguments: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """All that is known after each preset."""
    base = SynthesisConfig(diffusion_model=str(folder))
    classifier, preprocess, target = make_classifier(32 if arguments.tiny else 224, device)
    peak = matrix_peak(device, 256 if arguments.tiny else MATRIX)
    plain = opening.load_backend(base, device)
    loop = ReferenceLoop(plain.pipeline, deepcopy(classifier), preprocess, target)
    speed = reference_speed(plain, loop, FEW_STEPS if arguments.tiny else {})
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "dtype": str(plain.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "matrix_peak_tflops": round(peak, 1),
        "images_per_second": {"reference": round(speed, 4)},
        "ratio": {"reference": 1.0},
        "presets": {},
    }
    yield result
    for preset, compiled in [*((name, False) for name in PRESETS), *((name, True) for name in arguments.compile)]:
        config = Config.from_run_config({"preset": preset, "diffusion-model": str(folder)}).synthesis
        if arguments.tiny:
            config = replace(config, **FEW_STEPS)
        weights = config.classification_weight, config.statistics_weight
        guidance = ClassifierGuidance(classifier, preprocess, target, *weights)
        found = preset_speed(replace(config, compile=compiled), guidance, plain, arguments.batch)
        name = f"{preset}, compiled" if compiled else preset
        result["images_per_second"][name] = round(found["images_per_second"], 4)
        result["ratio"][name] = round(found.pop("images_per_second") / speed, 1)
        result["presets"][name] = found | {"share_of_matrix_peak": round(found["tflops"] / peak, 3)}
        yield result
    if device.type == "cuda":
        for preset in PRESETS:
            config, found = Config.from_run_config({"preset": preset}).synthesis, result["presets"][preset]
            found["largest_batch"] = largest_batch(plain, guidance, config, found["batch"])
            yield result


def build(tiny: bool) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's shape with random weights, and the tokenizer of the embedded model."""
    torch.manual_seed(0)
    tokenizer = opening.load_backend(SynthesisConfig(), torch.device("cpu")).pipeline.tokenizer
    width, text_width, tokenizer.model_max_length = (32, 64, 24) if tiny else (320, 768, 77)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=2 if tiny else 12,
        num_attention_heads=text_width // 64,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    levels = 2 if tiny else 4
    unet = UNet2DConditionModel(
        sample_size=8 if tiny else 64,
        cross_attention_dim=text_width,
        attention_head_dim=8,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width)[:levels],
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
    )
    channels = (32, 64, 64, 64) if tiny else (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=8 * unet.config.sample_size,
        scaling_factor=0.18215,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae, CLIPTextModel(text), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def make_classifier(size: int, device: torch.device) -> tuple:
    """A ResNet-18 that saw nothing but noise, its preprocessing, and its statistics."""
    model = architectures.build("resnet18", len(CLASS_NAMES), size).to(device)
    spec = PreprocessSpec(image_size=size)
    model.train()
    with torch.no_grad():
        model(spec(torch.rand(16, 3, size, size, device=device)))
    model.eval().requires_grad_(False)
    return model, spec, feature_statistics.batch_norm_moments(model)


def reference_speed(backend: LatentBackend, loop: ReferenceLoop, steps: dict[str, int]) -> float:
    """Images a second of the authors' loop, with their numbers of steps unless given: of one image, after one of few
    steps."""
    x_T = backend.initial_noise([0])
    loop.draw(CLASS_NAMES[0], 0, x_T, torch.Generator().manual_seed(0), **FEW_STEPS)
    wait(backend.device)
    started = time.perf_counter()
    loop.draw(CLASS_NAMES[0], 0, x_T, torch.Generator().manual_seed(0), **steps)
    wait(backend.device)
    return 1 / (time.perf_counter() - started)


def preset_speed(config: SynthesisConfig, guidance: ClassifierGuidance, plain: LatentBackend, size: int) -> dict:
    """Of one batch, halved until it fits, after one of fewer steps, which compiles. Operations are counted of the
    same without compilation, of one image."""
    device, scheduler = plain.device, make_scheduler(plain.pipeline.scheduler.config, config.sampler, flow=False)
    plain = LatentBackend(plain.family, scheduler)
    backend = opening.load_backend(config, device) if config.compile else plain
    batch = plan_images(0, "bench", CLASS_NAMES, -(-size // len(CLASS_NAMES)))[:size]
    started = time.perf_counter()
    while not fits(backend, guidance, replace(config, **FEW_STEPS), batch):
        batch = batch[: len(batch) // 2]
        started = time.perf_counter()
    size = len(batch)
    wait(device)
    warm_up = time.perf_counter() - started
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    generate_batch(backend, guidance, batch, CLASS_NAMES, config)
    wait(device)
    seconds = time.perf_counter() - started
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    with Operations() as counter:
        generate_batch(plain, guidance, batch[:1], CLASS_NAMES, config)
    return {
        "images_per_second": size / seconds,
        "batch": size,
        "tflops": round(counter.total * size / seconds / 1e12, 3),
        "tflop_per_image": round(counter.total / 1e12, 3),
        "peak_memory_gb": round(memory, 2),
        "warm_up_seconds": round(warm_up, 1),
    }


class Operations(TorchDispatchMode):
    """Floating-point operations of what runs inside. PyTorch's own counter also follows modules, by hooks which
    `autograd.grad` forbids."""

    total = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        value = function(*arguments, **(keywords or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.total += count(*arguments, **(keywords or {}), out_val=value)
        return value


def matrix_peak(device: torch.device, size: int) -> float:
    """TFLOP/s of a plain bfloat16 matrix product."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    wait(device)
    started = time.perf_counter()
    for _ in range(20):
        left @ right
    wait(device)
    return 20 * 2 * size**3 / (time.perf_counter() - started) / 1e12


def largest_batch(backend: LatentBackend, guidance: ClassifierGuidance, config: SynthesisConfig, size: int) -> int:
    """Doubled until the memory does not suffice."""
    few = replace(config, **FEW_STEPS)
    while size < LARGEST_TRIED:
        batch = plan_images(0, "bench", CLASS_NAMES, -(-2 * size // len(CLASS_NAMES)))[: 2 * size]
        if not fits(backend, guidance, few, batch):
            break
        size *= 2
    return size


def fits(backend: LatentBackend, guidance: ClassifierGuidance, config: SynthesisConfig, batch: list) -> bool:
    """Whether the memory suffices for a batch, which is generated.

    Raises
    ------
    torch.OutOfMemoryError: not even for one image.
    """
    try:
        generate_batch(backend, guidance, batch, CLASS_NAMES, config)
        return True
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    return False


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
