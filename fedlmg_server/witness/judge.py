"""The verdict on each client, from all that the server can show its classifiers; kept in the workspace's `witness/`."""

import json
from dataclasses import asdict, dataclass
from typing import Self

import torch

from common.datasets.labeled_images import LabeledView
from common.labels import parse_aliases
from common.labels.maps import find_indices
from common.storage.atomic import write_json
from common.storage.images import Images, ImageView
from common.upload import Upload, to_wire, weights_digest
from common.vision.metrics import above_chance, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.diffusion.backend import DiffusionBackend
from fedlmg_server.general.images import general_class_names, load_general_images
from fedlmg_server.general.models import load_general_model
from fedlmg_server.run import Run
from fedlmg_server.witness.styled import draw_plain, draw_styled, load_copy
from fedlmg_server.witness.verdict import UNKNOWN, Verdict, confirm, join, judge_reading, judge_shift
from fedlmg_server.workspace import Workspace


@dataclass(frozen=True)
class Finding:
    """What the witness says of one client."""

    verdict: Verdict
    reads_general: float | None = None
    """How far above chance (0 is chance, 1 perfect) a classifier that started from a general model reads held-out
    general images of the client's classes: the copy, or the client's own; None if none started from one."""
    reads_styled: float | None = None
    """The same of the client's own classifier and images in its look; None if none were drawn."""

    def write(self, workspace: Workspace, upload: Upload) -> None:
        write_json(workspace.finding(upload.client), {"upload": upload.manifest.checksum} | asdict(self))

    @classmethod
    def read(cls, workspace: Workspace, upload: Upload) -> Self | None:
        """Of this very upload; None if it was not heard yet."""
        path = workspace.finding(upload.client)
        said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if said.pop("upload", "") != upload.manifest.checksum:
            return None
        return cls(**said | {"verdict": Verdict(**said["verdict"])})


SILENT = Finding(UNKNOWN)


def hear(run: Run, backend: DiffusionBackend, upload: Upload, held_out: LabeledView | None) -> Finding:
    """Judge a client by its classifiers.

    held_out: general images that no general model was trained on, labels in `general_class_names`; None without.

    Raises
    ------
    ValueError: images that are not finite.
    """
    copy = load_copy(run, upload)
    started = _Started.of_upload(run, upload, copy) if held_out else None
    verdicts, reads_general = [], None
    if started and held_out:
        of_shift, reads_general = started.judge(run, upload, held_out)
        verdicts.append(of_shift)
    # What the copy shows says nothing of the client's own classifier, whatever start its manifest names.
    own_is_judged = copy is None and bool(verdicts) and verdicts[0].state != "unknown"
    if own_is_judged:
        return Finding(join(verdicts), reads_general)
    if (drawn := draw_styled(backend, run, upload)) is None:
        return Finding(join([*verdicts, UNKNOWN]), reads_general)
    images, labels = drawn
    held = upload.held_class_names
    verdict = judge_reading(read_own(run, upload, images), labels, held)
    if verdict.state == "mislabelled":
        others, shown = show_any_look(backend, run, upload, held_out)
        verdict = confirm(verdict, read_own(run, upload, others), shown, held)
    verdicts.append(verdict)
    read = above_chance(verdict.read or 0.0, len(held), len(labels))
    return Finding(join(verdicts), reads_general, read)


def read_own(run: Run, upload: Upload, images: Images) -> torch.Tensor:
    """Log-probabilities (N, held classes) that the client's own classifier gives images uint8 (N, 3, h, w)."""
    columns = [upload.class_names.index(name) for name in upload.held_class_names]
    return _read(upload.classifier(run.device), upload.preprocess, images)[:, columns]


def show_any_look(
    backend: DiffusionBackend, run: Run, upload: Upload, held_out: LabeledView | None
) -> tuple[Images, torch.Tensor]:
    """General images, with labels in the upload's held classes. Where they lack one of these classes, the diffusion
    model draws images without guidance instead."""
    names, count = general_class_names(run), len(upload.held_class_names)
    if held_out and not (_find_columns(run, upload, names) < 0).any():
        images, labels = _choose_held(run, upload, names, held_out)
        if len(labels.unique()) == count:
            return images, labels
    return draw_plain(backend, run, upload.held_class_names)


@dataclass(frozen=True)
class _Started:
    """A classifier beside the general model that it started from; both know the same classes."""

    model: torch.nn.Module
    general: torch.nn.Module
    class_names: list[str]

    @classmethod
    def of_upload(cls, run: Run, upload: Upload, copy: torch.nn.Module | None) -> Self | None:
        """The copy, else the client's own; None if it started from no general model that the run still has, or does not
        know all classes that the client holds."""
        said = upload.manifest.student_copy
        if said and copy:
            architecture, start, names, model = said.architecture, said.start, said.class_names, copy
        else:
            architecture, start = upload.manifest.architecture, upload.manifest.start
            names, model = upload.class_names, upload.classifier(run.device)
        if not start or list(names) != list(general_class_names(run)):
            return None
        if (_find_columns(run, upload, names) < 0).any():
            return None
        try:
            general = load_general_model(run, architecture)
        except (OSError, ValueError):
            return None
        wire = {name: to_wire(tensor) for name, tensor in general.state_dict().items()}
        return cls(model, general.to(run.device), list(names)) if weights_digest(wire) == start else None

    def judge(self, run: Run, upload: Upload, held_out: LabeledView) -> tuple[Verdict, float]:
        """By general images of the classes that the client holds; also how far above chance it reads them."""
        columns = _find_columns(run, upload, self.class_names)
        images, labels = _choose_held(run, upload, self.class_names, held_out)
        before, after = (_read(model, upload.preprocess, images)[:, columns] for model in (self.general, self.model))
        verdict = judge_shift(before, after, labels, upload.held_class_names)
        return verdict, above_chance(verdict.read or 0.0, len(columns), len(labels))


def _choose_held(
    run: Run, upload: Upload, class_names: list[str], shown: LabeledView
) -> tuple[ImageView, torch.Tensor]:
    """The images of classes that the client holds, with labels in these; shown: labels in `class_names`."""
    columns = _find_columns(run, upload, class_names)
    position = torch.full((len(class_names),), -1).index_put((columns,), torch.arange(len(columns)))
    rows = position[shown.labels] >= 0
    return shown.images.choose(rows), position[shown.labels[rows]]


def _find_columns(run: Run, upload: Upload, class_names: list[str]) -> torch.Tensor:
    """int64 (held classes,): which of `class_names` each class is that the client holds; -1 where it is none."""
    aliases = parse_aliases(run.config.clients.class_aliases)
    return find_indices(upload.held_class_names, class_names, aliases)


def load_held_out(run: Run) -> LabeledView | None:
    """General images to show to classifiers; None in a run without a warm start."""
    return load_general_images(run).held_out if run.config.general.warm_start else None


def _read(model: torch.nn.Module, preprocess: PreprocessSpec, images: Images) -> torch.Tensor:
    return _log(predict(model, preprocess, images))


def _log(probabilities: torch.Tensor) -> torch.Tensor:
    return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
