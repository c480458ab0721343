"""`ensemble-by-quality`: the mean of the clients' probabilities, weighted by its teacher score.

FedLMG scores teachers by the synthetic images, so these are part of the cost.
"""

from common.vision.metrics import accuracy
from fedlmg_server.baselines.outcome import DoesNotApply, Outcome, bytes_of_sharing_uploads, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation import teachers
from fedlmg_server.synthesis import store


def by_quality(run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: no client is above chance.
    """
    weights = {client: score["quality"] or 0.0 for client, score in run.teacher_scores.items()}
    if not any(weights.values()):
        raise DoesNotApply("no client's quality is above chance")
    cost = cost_of_uploads(run)
    per_client = {}
    for client, test in run.test.items():
        probabilities = teachers.predict_with_all(run, test.images)
        mean = teachers.multi_teacher(probabilities, run.known_classes, weights)
        per_client[client] = accuracy(mean, test.labels)
    cost.download_bytes += bytes_of_sharing_uploads(run)
    cost.num_images = store.count_images(run.workspace)
    cost.server_seconds += run.workspace.stage_seconds()["synthesis"]
    return Outcome(per_client, cost)
