"""`ceiling-linear-probe`: only the student's last layer, trained on all clients' real images.

So the authors' code trains its ceiling. Simulation only.
"""

from common.models import pretrained
from fedlmg_server.baselines import ceiling
from fedlmg_server.baselines.federation import Cost, Federation, Outcome
from fedlmg_server.distillation import aggregate, trainer


def linear_probe(federation: Federation) -> Outcome:
    """The student as it starts (`student-initialisation`; from scratch, its features are random) with its last layer
    trained; BatchNorm's running moments follow the images, as in the authors' code."""
    data, model, config = ceiling.pooled(list(federation.trains.values())), federation.student(), federation.config
    head = pretrained.head_name(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
    cost = Cost(rounds=1, upload_bytes=data.images.numel(), num_images=len(data.images))
    with cost.timed("server"):
        preprocess = aggregate.preprocessing(config)
        trainer.train(model, data, preprocess, config.distillation, config.seed, federation.num_updates)
    cost.download_bytes = federation.sent_back(model)
    return Outcome(federation.measure(model), cost)
