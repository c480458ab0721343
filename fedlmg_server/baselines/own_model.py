"""`own-model`: every client keeps its own classifier, and asks of it its own images alone; nothing is sent.

What a client has without any federation. `local` reads everybody's images with the same classifiers.
"""

from common.vision.metrics import accuracy
from fedlmg_server.baselines.federation import Cost, Federation, Outcome
from fedlmg_server.distillation import teachers


def own_model(federation: Federation) -> Outcome:
    names, device = federation.class_names, federation.device
    per_client = {}
    for upload in federation.uploads:
        test = federation.tests[upload.client]
        read = teachers.probabilities(upload, test.images, names, device)
        per_client[upload.client] = accuracy(read, test.labels)
    cost = federation.one_exchange()
    return Outcome(per_client, Cost(epochs=cost.epochs, client_seconds=cost.client_seconds))
