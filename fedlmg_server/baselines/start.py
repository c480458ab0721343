"""`general`: what the server knew before any client trained."""

import torch

from common.config import ConfigError
from common.models.predictor import Classifier
from fedlmg_server.baselines.averaging import shared_architecture
from fedlmg_server.baselines.outcome import DoesNotApply
from fedlmg_server.baselines.virtual_run import Accuracies, VirtualRun
from fedlmg_server.general.images import general_class_names
from fedlmg_server.general.models import load_general_model
from fedlmg_server.run import Run


def general_classifier(run: Run, architecture: str) -> Classifier:
    """The general model of an architecture, in evaluation mode.

    Raises
    ------
    DoesNotApply: the run has none of this architecture.
    """
    if not run.config.general.warm_start:
        raise DoesNotApply("the run has no general models: set 'warm-start'")
    try:
        model = load_general_model(run, architecture)
    except ConfigError as error:
        raise DoesNotApply(str(error)) from None
    return Classifier(model, general_class_names(run), run.preprocess)


def measure_general(run: VirtualRun) -> Accuracies:
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
