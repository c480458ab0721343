"""`ensemble-by-quality`: the mean of the clients' probabilities, weighted by how good FedLMG judged each to be.

FedLMG judges by the images that it drew, so they are part of the price.
"""

from fedlmg_server.baselines import teachers_alone
from fedlmg_server.baselines.federation import DoesNotApply, Federation, Outcome
from fedlmg_server.distillation import aggregate, teachers
from fedlmg_server.synthesis import launch


def by_quality(federation: Federation) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: no client is above chance.
    """
    verdicts = aggregate.verdicts(federation.workspace)
    weights = {client: verdict["quality"] or 0.0 for client, verdict in verdicts.items()}
    if not any(weights.values()):
        raise DoesNotApply("no client's quality is above chance")
    cost = federation.one_exchange()
    per_client = {}
    for client, test in federation.tests.items():
        read = {
            upload.client: teachers.probabilities(upload, test.images, federation.class_names, federation.device)
            for upload in federation.uploads
        }
        per_client[client] = teachers_alone.ensemble(read, federation.known, test.labels, weights)
    cost.download_bytes = federation.exchanged()
    cost.num_images = launch.num_drawn(federation.workspace)
    cost.server_seconds += federation.workspace.stage_totals()["synthesis"]
    return Outcome(per_client, cost)
