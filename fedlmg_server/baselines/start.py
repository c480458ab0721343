"""`general`: what the server knew before any client trained."""

import json

import torch

from common.models.predictor import Classifier
from common.names import safe_name
from common.storage.tensors import read_tensors
from fedlmg_server.baselines.averaging import shared_architecture
from fedlmg_server.baselines.outcome import DoesNotApply
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.student import build_classifier
from fedlmg_server.run import Run


def general_classifier(run: Run, architecture: str) -> Classifier:
    """The general model of an architecture, in evaluation mode.

    Raises
    ------
    DoesNotApply: the run has none of this architecture.
    """
    folder = run.workspace.root / "general"
    weights, names_file = folder / f"{safe_name(architecture)}.safetensors", folder / "class_names.json"
    if not run.config.general.warm_start or not weights.exists():
        raise DoesNotApply(f"the run has no general model of '{architecture}': set 'warm-start'")
    names = json.loads(names_file.read_text())
    model = build_classifier(run, architecture, len(names))
    model.load_state_dict(read_tensors(weights)[0])
    return Classifier(model.float().to(run.device).eval(), names, run.preprocess)


def measure_general(run: VirtualRun) -> dict[str, float]:
    """Client -> accuracy of the general model of the student's architecture.

    Raises
    ------
    DoesNotApply: the run has none.
    """
    return run.measure_classifier(general_classifier(run, run.config.distillation.student_architecture))


def general_model(run: VirtualRun) -> torch.nn.Module:
    """The general model that training in rounds starts from: of the architecture that all clients share, else of the
    student's, which every client can train.

    Raises
    ------
    DoesNotApply: the run has none, or a client has a class that it lacks.
    """
    try:
        architecture = shared_architecture(run)
    except DoesNotApply:
        architecture = run.config.distillation.student_architecture
    classifier = general_classifier(run, architecture)
    if classifier.class_names != run.class_names:
        raise DoesNotApply("the clients' classes are not those of the general model")
    return classifier.network
