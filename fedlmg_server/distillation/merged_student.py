"""The model that is merged from the uploads; a guided student stands for the clients that sent nothing to merge (ours).

Members of the merge are classifiers of the student's architecture that started from the general model: a client's own,
or the copy in its upload. For the other clients a student is distilled from the general model on the images that their
classifiers guided, beside general images. It counts as many times as there are such clients.
"""

from dataclasses import dataclass, replace

import torch

from common.config import ConfigError
from common.upload import Upload, to_wire, weights_digest
from common.vision.metrics import accuracy, predict
from fedlmg_server.distillation.merge import Measure, Member, Merged, State, merge
from fedlmg_server.distillation.student import build_classifier
from fedlmg_server.events import Note
from fedlmg_server.general.images import GeneralImages, load_general_images
from fedlmg_server.general.models import load_general_model
from fedlmg_server.run import Run

GUIDED = "the guided student "
"""Stands for a client's name; no client's name ends with a blank."""


@dataclass(frozen=True)
class Start:
    """The general model of the student's architecture, as clients received it."""

    state: State
    checksum: str

    @classmethod
    def of_run(cls, run: Run) -> "Start":
        """
        Raises
        ------
        ConfigError: the run has no general model of that architecture.
        """
        architecture = run.config.distillation.student_architecture
        try:
            weights = load_general_model(run, architecture).state_dict()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"'aggregation' is 'merge', but there is no general model of '{architecture}' ({error}): set "
                "'warm-start=true', or another 'aggregation'"
            ) from None
        wire = {name: to_wire(tensor) for name, tensor in weights.items()}
        return cls({name: _to_float(tensor) for name, tensor in wire.items()}, weights_digest(wire))


def find_members(run: Run, start: Start, weights: dict[str, float]) -> list[Member]:
    """The classifiers that can be merged, without those of clients whose weight as a teacher is 0."""
    architecture = run.config.distillation.student_architecture
    found = []
    for upload in run.uploads:
        state = _mergeable(upload, architecture, run.class_names, start.checksum)
        if state and weights[upload.client] > 0:
            floats = {name: _to_float(tensor) for name, tensor in state.items()}
            found.append(Member(upload.client, floats, weights[upload.client]))
    return found


def merge_members(run: Run, start: Start, members: list[Member]) -> tuple[torch.nn.Module, Merged]:
    """The merge as a model in evaluation mode, and how it came about. Where no member can be trusted it is the general
    model, and the run's events say why."""
    model = build_classifier(run, run.config.distillation.student_architecture, len(run.class_names)).to(run.device)
    general = load_general_images(run)
    measure, are_real = measure_on_general_images(run, model, general), general.source == "public"
    merged = merge(start.state, members, measure, len(run.class_names), may_extrapolate=are_real)
    if not len(general.held_out):
        merged = replace(merged, accuracies={})
    if len(merged.left_out) == len(members):
        reasons = "; ".join(f"{client}: {reason}" for client, reason in merged.left_out.items())
        text = f"no client's classifier can be merged ({reasons or 'all are near chance'})"
        run.workspace.log(Note(text=f"{text}: the model that goes back is the general one"))
    model.load_state_dict(merged.state)
    return model.eval(), merged


def measure_on_general_images(run: Run, model: torch.nn.Module, general: GeneralImages) -> Measure:
    """Accuracy on held-out general images of whatever weights are loaded into `model`; 0 where there are none, so that
    the merge is the average."""
    held_out = general.held_out

    def measure(state: State) -> float:
        if not len(held_out):
            return 0.0
        model.load_state_dict(state)
        return accuracy(predict(model, run.preprocess, held_out.images), held_out.labels)

    return measure


def _mergeable(upload: Upload, architecture: str, class_names: list[str], checksum: str) -> State | None:
    """The upload's weights of that architecture, for those classes, that started from the general model with that
    checksum."""
    wanted, said, copy = (architecture, class_names, checksum), upload.manifest, upload.manifest.student_copy
    if (said.architecture, upload.class_names, said.start) == wanted:
        return upload.arrays
    if copy and (copy.architecture, copy.class_names, copy.start) == wanted:
        return upload.student_copy
    return None


def _to_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
