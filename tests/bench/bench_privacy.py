"""What finished runs of virtual clients give away, by attacks on real images; the last line is JSON, accuracies in %.

uv run python -m tests.bench.bench_privacy runs/seed-0 [runs/seed-1 ...] [--inversion inversion.png]

Membership: each client's training images against its test images, by the loss of its own upload, of the model that is
given back, of one trained by FedAvg over 20 rounds in the same architecture, and of one trained on all real images
together; and by the distance to the nearest synthetic image. The figures are means over the clients: pooled, the easy
images of one client would hide what is told of another's. Inversion: images generated from an upload's
BatchNorm statistics and labels alone, without any diffusion model (after DeepInversion, Yin et al., 2020).
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import torch
from flwr.serverapp.strategy import FedAvg
from PIL import Image

from common.datasets.labeled_images import LabeledView
from common.manifest import Membership
from common.models import architectures, feature_statistics
from common.upload import Upload
from fedlmg_client import audit, image_audit
from fedlmg_server.baselines import centralised, rounds
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.distillation.student import make_student, train_student
from fedlmg_server.distillation.synthetic_set import read_synthetic_set
from fedlmg_server.synthesis.guidance import ClassifierGuidance
from fedlmg_server.synthesis.losses import classification_loss, statistics_loss

CPU = torch.device("cpu")
INVERSION_STEPS, INVERSION_RATE, SMOOTHNESS = 300, 0.05, 0.02
TILE = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished `fedlmg run`s")
    parser.add_argument("--inversion", type=Path, help="picture to write, of the first run's first BatchNorm client")
    arguments = parser.parse_args()
    measured: dict[str, list[Membership]] = {}
    for folder in arguments.runs:
        for name, found in attacks(VirtualRun.reopen(folder, CPU)).items():
            measured.setdefault(name, []).append(found)
            print(f"{folder}: {name}: AUC {found.auc:.3f}, {found.tpr_at_1_percent_fpr:.1%} at 1 %", flush=True)
    if arguments.inversion:
        write_inversion(VirtualRun.reopen(arguments.runs[0], CPU), arguments.inversion)
    keys = ("auc", "tpr_at_1_percent_fpr")
    table = {
        name: {key: spread([getattr(each, key) for each in found]) for key in keys} for name, found in measured.items()
    }
    print(json.dumps({"runs": len(arguments.runs), "membership": table}))


def spread(values: list[float]) -> list[float]:
    """Mean and standard deviation in %."""
    return [round(100 * mean(values), 1), round(100 * stdev(values), 1) if len(values) > 1 else 0.0]


def attacks(run: VirtualRun) -> dict[str, Membership]:
    pooled, _ = train_student(run, centralised.pool_images(list(run.train.values())))
    synthetic = read_synthetic_set(run).images
    models = {"given back": load_model(run), "FedAvg, 20 rounds": averaged(run), "all real images": pooled}
    sets = {client: (LabeledView.of(images), LabeledView.of(run.test[client])) for client, images in run.train.items()}
    found = {
        "own uploads": [
            audit.measure_membership(upload.classifier(), upload.preprocess, *sets[upload.client])
            for upload in run.uploads
        ],
        **{
            name: [audit.measure_membership(model, run.preprocess, *both) for both in sets.values()]
            for name, model in models.items()
        },
        "synthetic images": [
            audit.membership_from_scores(*(-image_audit.find_nearest(images.images, synthetic)[0] for images in both))
            for both in sets.values()
        ],
    }
    return {name: over_clients(each) for name, each in found.items()}


def over_clients(found: list[Membership]) -> Membership:
    """Mean figures, all clients' images."""
    return Membership(
        auc=mean(each.auc for each in found),
        tpr_at_1_percent_fpr=mean(each.tpr_at_1_percent_fpr for each in found),
        members=sum(each.members for each in found),
        others=sum(each.others for each in found),
    )


def averaged(run: VirtualRun) -> torch.nn.Module:
    """The student's architecture, which every client trains on its real images in 20 rounds of FedAvg."""
    model = make_student(run)
    rounds.train(run, model, FedAvg(**rounds.settings_for_all_clients(run)))
    return model


def write_inversion(run: VirtualRun, path: Path) -> None:
    """Above: a class's images generated from the upload alone; below: the mean of the client's real ones."""
    upload = next(u for u in run.uploads if architectures.has_batch_norm(u.classifier()))
    images, data = invert(upload), run.train[upload.client]
    means = [data.images[data.labels == label].float().mean(0) / 255 for label in range(len(upload.class_names))]
    canvas = Image.new("RGB", (TILE * len(means), 2 * TILE))
    for line, row in enumerate((images, means)):
        for column, image in enumerate(row):
            picture = Image.fromarray((image.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy())
            canvas.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (column * TILE, line * TILE))
    canvas.save(path)
    print(f"inversion of {upload.client}: {path}")


def invert(upload: Upload) -> torch.Tensor:
    """One image a class, (classes, 3, S, S) in [0, 1]: right label, the upload's moments over the batch, smooth."""
    guidance = ClassifierGuidance.of_upload(
        upload, CPU, classification_weight=1.0, statistics_weight=0.1, by_class=False
    )
    targets = torch.arange(len(upload.class_names))
    size = upload.preprocess.image_size
    pixels = torch.randn(len(targets), 3, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([pixels], INVERSION_RATE)
    for _ in range(INVERSION_STEPS):
        images = pixels.sigmoid()
        rough = (images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean()) * size
        with feature_statistics.recording(guidance.classifier, guidance.target_statistics) as recorded:
            logits = guidance.classifier(guidance.preprocess(images))
        of_batch = {name: feature_statistics.pool(moments) for name, moments in recorded.items()}
        loss = guidance.classification_weight * classification_loss(logits, targets).mean()
        loss = loss + guidance.statistics_weight * statistics_loss(of_batch, guidance.target_statistics).sum()
        optimizer.zero_grad()
        (loss + SMOOTHNESS * size * rough).backward()
        optimizer.step()
    return pixels.detach().sigmoid()


if __name__ == "__main__":
    main()
