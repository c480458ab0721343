"""General images: labelled images of the run's classes that come from no client."""

import hashlib
import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from common.datasets.labeled_images import LabeledView
from common.datasets.readers import folders
from common.labels import parse_aliases
from common.labels.maps import find_indices
from common.storage.atomic import write_json
from common.storage.caches import image_cache
from common.storage.images import ImageView
from fedlmg_server.general import embedded, unguided
from fedlmg_server.run import Run

HELD_OUT_SHARE = 0.1
"""Share of the images that is held out where a source has no held-out images of its own."""
SUMMARY = "images.json"
"""File in the workspace's folder `general`."""
MOST_SHOWN = 5
"""Classes that a note names, and notes about skipped files."""


@dataclass(frozen=True)
class GeneralImages:
    """Images of the run's size, uint8 (N, 3, image_size, image_size), labels in `general_class_names`."""

    train: LabeledView
    held_out: LabeledView
    source: Literal["public", "unguided"]
    notes: tuple[str, ...] = ()
    """What the operator should know, one sentence each: which classes are ignored or missing."""

    @property
    def checksum(self) -> str:
        """sha256 of images and labels."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            part.images.hash_into(digest)
            digest.update(part.labels.contiguous().numpy().data)
        return digest.hexdigest()


def general_class_names(run: Run) -> list[str]:
    """The classes of general images and models: those that were fixed at the question, else those of the uploads."""
    return run.workspace.fixed_class_names or run.class_names


def load_general_images(run: Run) -> GeneralImages:
    """The general images that the config asks for; unguided ones are generated first, where some are missing. The
    workspace keeps where they come from and how many they are (see `summarise`).

    Raises
    ------
    FolderError: `public-images` is no folder of images.
    ConfigError: unguided images are needed, and the diffusion model cannot be opened or does not know a class.
    """
    images = _load(run)
    write_json(run.workspace.general / SUMMARY, {"source": images.source, "num_images": len(images.train)})
    return images


def summarise(run: Run) -> dict[str, Any] | None:
    """`source` and `num_images` of the training images that were loaded last; None if none were loaded."""
    path = run.workspace.general / SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _load(run: Run) -> GeneralImages:
    public = _load_public(run) if run.config.general.general_images == "public" else None
    if public is not None and len(public.train):
        return public
    images = unguided.load_unguided_images(run, general_class_names(run))
    train, held_out = _hold_out(LabeledView.of(images), run.config.seed)
    return GeneralImages(train, held_out, "unguided", public.notes if public else ())


def balanced_rows(labels: torch.Tensor, most: int, seed: int) -> torch.Tensor:
    """At most `most` random rows, of every class as many as there are or as of the others: int64, sorted."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ranks = _ranks(labels[order])
    return order[ranks.argsort(stable=True)[:most]].sort().values


def _ranks(labels: torch.Tensor) -> torch.Tensor:
    """How many earlier rows have the label of each row."""
    counts = torch.bincount(labels)
    ranks = torch.empty_like(labels)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    ranks[labels.argsort(stable=True)] = torch.arange(len(labels)) - starts
    return ranks


def _hold_out(images: LabeledView, seed: int) -> tuple[LabeledView, LabeledView]:
    """Training and held-out images; of each class a tenth is held out, and one image at least if it has two."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    labels = images.labels[order]
    counts = torch.bincount(labels)
    shares = (counts * HELD_OUT_SHARE).round().long().clamp(min=1).where(counts > 1, 0)
    is_held_out = torch.empty(len(labels), dtype=torch.bool)
    is_held_out[order] = _ranks(labels) < shares[labels]
    return images.choose(~is_held_out), images.choose(is_held_out)


def _load_public(run: Run) -> GeneralImages | None:
    """Labelled public images, perhaps none of the run's classes; None where the run has no source of any."""
    settings, simulation = run.config.general, run.config.simulation
    most = settings.most_images("public")
    if settings.public_images:
        per_class = max(1, most // len(general_class_names(run)))
        path = Path(settings.public_images).expanduser()
        size, cache = run.config.training.image_size, image_cache()
        folder = folders.load(path, size, allow_outside=True, most_per_class=per_class, cache=cache)
        held_out = folder.splits["validation"].join(folder.splits["test"])
        found = _match(run, folder.class_names, folder.splits["train"], held_out)
        skipped = tuple(f"'public-images': skipped {line}" for line in folder.problems[:MOST_SHOWN])
        return replace(found, notes=found.notes + skipped)
    if simulation.dataset and not simulation.folders:
        is_made = embedded.is_cached(simulation.dataset, most)
        with nullcontext() if is_made else run.workspace.stage(unguided.STAGE):
            names, *parts = embedded.load_public_images(simulation.dataset, most)
            return _match(run, names, *map(LabeledView.of, parts))
    return None


def _match(run: Run, names: list[str], train: LabeledView, held_out: LabeledView) -> GeneralImages:
    """Images of the run's classes alone, found by name."""
    class_names = general_class_names(run)
    indices = find_indices(names, class_names, parse_aliases(run.config.clients.class_aliases))
    parts = [_resize(run, part.with_labels(indices[part.labels])) for part in (train, held_out)]
    unknown = [name for name, index in zip(names, indices.tolist(), strict=True) if index < 0]
    missing = [name for number, name in enumerate(class_names) if number not in indices]
    notes = []
    if unknown:
        notes.append(f"public images of classes that no client has are ignored: {_list(unknown)}")
    if missing:
        notes.append(f"there are no public images of {_list(missing)}: the general models do not learn these classes")
    if not len(parts[1]) and len(parts[0]):
        parts = list(_hold_out(parts[0], run.config.seed))
    return GeneralImages(parts[0], parts[1], "public", tuple(notes))


def _resize(run: Run, part: LabeledView) -> LabeledView:
    if part.images.shape[-1] == run.preprocess.image_size:
        return part
    return LabeledView(ImageView.of(run.preprocess.resize(part.images.read())), part.labels)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:MOST_SHOWN]) + more
