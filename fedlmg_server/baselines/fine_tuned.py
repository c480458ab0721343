"""`no-federation` and `personal`: models that each client fine-tuned and kept, the general and the returned one.

They never leave the clients; a virtual client keeps them in the run's workspace, so that a simulation can measure them
on everybody's images. `NAME` reads each client's own test set with its own model; `NAME-all` is the mean of all
clients' models on it.
"""

from collections.abc import Callable, Mapping

from common.evaluation import Evaluation
from common.models import architectures
from common.models.predictor import Classifier, ModelError, load_classifier
from common.vision.shares import mean_of_known
from fedlmg_server.baselines.virtual_run import VirtualRun, balanced_of, choose_shared

KINDS = ("no-federation", "personal")
"""Folders in a client's cache."""

Matrix = dict[str, dict[str, float]]
"""Client -> its model's accuracy, in [0, 1], on each client's test images."""


def measure(
    run: VirtualRun, evaluations: Mapping[str, Evaluation], on_progress: Callable[[int], None] = lambda count: None
) -> dict[str, Matrix]:
    """Kind -> how its models read every test set, for the clients that measured theirs in this round: a model of an
    earlier round may still lie in the cache of another. `on_progress` hears of each client, of each kind."""
    shared = choose_shared(run.test)
    found: dict[str, Matrix] = {}
    for kind in KINDS:
        told = {client: getattr(evaluation, kind.replace("-", "_")) for client, evaluation in evaluations.items()}
        found[kind] = {}
        for client in (upload.client for upload in run.uploads):
            if told.get(client) is not None and (model := load(run, client, kind)):
                found[kind][client] = run.measure_classifier(model, {client, *shared})
            on_progress(1)
    return found


def load(run: VirtualRun, client: str, kind: str) -> Classifier | None:
    """A client's model of one of `KINDS`, if it is there whole."""
    architecture = run.config.distillation.student_architecture
    folder = run.workspace.root / "virtual-clients" / client / kind
    if not (folder / "model.json").exists():
        return None
    try:
        return load_classifier(folder, architecture if architectures.is_builder(architecture) else None)
    except ModelError:
        return None


def rows(found: Mapping[str, Matrix]) -> dict[str, dict[str, float | None]]:
    """Method -> accuracy on each client's test set; kinds that nobody has are left out."""
    per_method: dict[str, dict[str, float | None]] = {}
    for kind, matrix in found.items():
        if matrix:
            tests = dict.fromkeys(test for row in matrix.values() for test in row)
            per_method[kind] = {test: matrix[test][test] if test in matrix else None for test in tests}
            read_by_all = [test for test in tests if all(test in row for row in matrix.values())]
            per_method[f"{kind}-all"] = {
                test: mean_of_known(row[test] for row in matrix.values()) for test in read_by_all
            }
    return per_method


def balanced_rows(found: Mapping[str, Matrix]) -> dict[str, dict[str, float | None]]:
    """`rows` of the balanced accuracies."""
    return rows(
        {
            kind: {client: balanced for client, row in matrix.items() if (balanced := balanced_of(row))}
            for kind, matrix in found.items()
        }
    )
