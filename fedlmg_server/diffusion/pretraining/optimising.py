"""The loop that trains an autoencoder or a denoiser: for a number of steps or of seconds, and resumable."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common.storage.tensors import load_training, save_training
from common.vision.schedule import make_scheduler
from fedlmg_server.diffusion.pretraining.config import PretrainConfig

PROBE = (5, 35)
"""First and last step by which the speed of a training is measured; the learning rate is still warming up."""

Draw = Callable[[torch.Generator], tuple[torch.Tensor, ...]]
"""Arguments of an objective, each with a row for every image of a batch."""


@dataclass(frozen=True)
class Phase:
    """One of the two trainings: of `num_steps`, or, where `seconds` are given, of about so many seconds."""

    name: str
    num_steps: int
    peak: float
    """Of the learning rate."""
    seconds: float = 0.0

    @property
    def is_timed(self) -> bool:
        return self.seconds > 0 and self.num_steps > 0


def optimise(
    objective: torch.nn.Module,
    draw: Draw,
    phase: Phase,
    accelerator: Accelerator,
    config: PretrainConfig,
    out: Path,
    ema: bool = False,
    snapshot: Callable[[], None] | None = None,
) -> tuple[int, float]:
    """Train one objective with AdamW; with `ema` its modules end with the averaged weights.

    out: its folder `checkpoints` holds the checkpoint. snapshot: called after each checkpoint, while the modules have
    the averaged weights, and at the end.

    Returns the steps and the seconds of training, summed over all runs that continued each other.
    """
    checkpoint, num_steps = out / "checkpoints" / f"{phase.name}.safetensors", phase.num_steps
    objective.to(accelerator.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=phase.peak, betas=(0.9, 0.99), weight_decay=1e-3)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    average = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True, inv_gamma=10, power=0.75, foreach=True)
    averaged = torch.nn.ParameterList(average.shadow_params)
    keeper = torch.nn.ModuleDict({"objective": objective, "averaged": averaged}) if ema else objective
    step, seconds_before, started = 0, 0.0, time.monotonic()
    if phase.is_timed:
        num_steps = config.warmup_steps + PROBE[1]  # Until the speed is known.
    if progress := load_training(checkpoint, keeper, optimizer):
        step, average.optimization_step = progress["step"], progress["step"]
        seconds_before = progress.get("seconds", 0.0)
        if phase.is_timed:
            num_steps = progress["num_steps"]
        average.shadow_params = [parameter.detach().clone() for parameter in averaged]
    scheduler = make_scheduler(optimizer, num_steps, config.warmup_steps, step)
    model, prepared = accelerator.prepare(objective, optimizer)

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def keep() -> None:
        if not accelerator.is_main_process:
            return
        for kept, current in zip(averaged, average.shadow_params, strict=True):
            kept.data.copy_(current)
        save_training(checkpoint, keeper, optimizer, {"step": step, "seconds": seconds(), "num_steps": num_steps})
        if snapshot is not None:
            with_average(snapshot)

    def with_average(action: Callable[[], None]) -> None:
        average.store(parameters)
        average.copy_to(parameters)
        action()
        average.restore(parameters)

    last_kept, losses, description = time.monotonic(), [], phase.name
    probe = step, last_kept
    with _progress(accelerator.is_main_process) as bar:
        task = bar.add_task(phase.name, total=num_steps, completed=step)
        while step < num_steps:
            generator = _step_generator(config.seed, phase.name == "denoiser", accelerator.process_index, step)
            loss = torch.zeros((), device=accelerator.device)
            for share, part in _split(draw(generator), config.parts):
                of_part = model(*part, generator) * share
                accelerator.backward(of_part)
                loss += of_part.detach()
            accelerator.clip_grad_norm_(parameters, 1.0)
            prepared.step()
            scheduler.step()
            prepared.zero_grad()
            if ema:
                average.step(parameters)
            step += 1
            losses.append(loss)
            if step == PROBE[0]:
                probe = step, time.monotonic()
            if step == PROBE[1] and phase.is_timed:
                num_steps = _steps_within(phase, step, probe)
                for group in optimizer.param_groups:
                    group["lr"] = phase.peak
                scheduler = make_scheduler(optimizer, num_steps, config.warmup_steps, step)
                bar.update(task, total=num_steps)
            if step % 50 == 0:
                description = f"{phase.name} loss {torch.stack(losses).mean().item():.4f}"
                bar.update(task, completed=step, description=description)
                losses.clear()
            if time.monotonic() - last_kept > config.checkpoint_seconds or step == num_steps:
                keep()
                if not bar.console.is_terminal:
                    bar.console.print(f"{description}, step {step}/{num_steps}")
                last_kept = time.monotonic()
    if ema:
        average.copy_to(parameters)
    if snapshot is not None and accelerator.is_main_process:
        snapshot()
    accelerator.wait_for_everyone()
    return step, seconds()


def _steps_within(phase: Phase, step: int, probe: tuple[int, float]) -> int:
    """Steps that the phase's seconds allow, the same in every process; probe: an earlier step, and when it ended."""
    since, ended = probe
    of_step = (time.monotonic() - ended) / (step - since)
    return broadcast_object_list([max(step, round(phase.seconds / of_step))])[0]


def _split(arguments: tuple[torch.Tensor, ...], parts: int) -> Iterator[tuple[float, tuple[torch.Tensor, ...]]]:
    """Parts of a batch, each with its share of the images."""
    for part in zip(*(argument.chunk(parts) for argument in arguments), strict=True):
        yield len(part[0]) / len(arguments[0]), part


def _step_generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def _progress(visible: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), disable=not visible)
