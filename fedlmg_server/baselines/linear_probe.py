"""`centralised-linear-probe`: only the student's last layer, trained on all clients' real images.

The authors' code trains its upper bound in this way. Simulation only.
"""

from common.models import pretrained
from common.storage.images import ImageView
from fedlmg_server import trainer
from fedlmg_server.baselines import centralised
from fedlmg_server.baselines.outcome import Cost, Outcome, bytes_to_every_client
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.student import make_student


def linear_probe(run: VirtualRun) -> Outcome:
    """The student as it starts (`student-initialisation`; from scratch, its features are random) with its last layer
    trained; BatchNorm's running moments follow the images, as in the authors' code."""
    data, model, config = centralised.pool_images(list(run.train.values())), make_student(run), run.config
    head = pretrained.head_name(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
    images = ImageView.of(data.images)
    cost = Cost(rounds=1, upload_bytes=images.num_bytes, num_images=len(images))
    with cost.timed("server"):
        trainer.train(model, data, run.preprocess, config.distillation, config.seed, run.num_updates)
    cost.download_bytes = bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)
