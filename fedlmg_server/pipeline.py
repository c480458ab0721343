"""The server's stages after the uploads: admission, plan, synthesis, distillation, report. Data flows down this list.

Each stage reads what the stage before left in the workspace and skips what is already there.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch

from common.config import Config, ConfigError
from common.devices import default_device
from common.labels import union_of_names
from common.models import architectures
from common.storage.atomic import write_bytes, write_json
from common.storage.tensors import read_tensors
from common.upload import Upload
from fedlmg_server.baselines import compare
from fedlmg_server.collection.admission import admit
from fedlmg_server.diffusion import location
from fedlmg_server.distillation import aggregate as aggregation
from fedlmg_server.distillation import synthetic_set
from fedlmg_server.report import drawn, model_card, page, results
from fedlmg_server.synthesis import estimate, launch, plan, scores, traces
from fedlmg_server.workspace import METHODS, Workspace


@dataclass(frozen=True)
class Aggregated:
    """What goes back to the clients."""

    arrays: dict[str, torch.Tensor]
    model_json: dict


def check(config: Config) -> None:
    """Before any client trains: what could only fail once all images are drawn.

    Raises
    ------
    ConfigError: no such diffusion model or architecture.
    """
    location.find_pipeline(config.synthesis.diffusion_model)
    for key, text in (
        ("architectures", config.training.architectures),
        ("student-architecture", config.distillation.student_architecture),
    ):
        for name in (part.strip() for part in text.split(",")):
            if (
                not architectures.is_builder(name)
                and architectures.base_architecture(name) not in architectures.list_names()
            ):
                nearest = difflib.get_close_matches(name, architectures.list_names(), n=1, cutoff=0)[0]
                raise ConfigError(f"config key '{key}' names '{name}', no architecture; the nearest is {nearest}")


def aggregate(config: Config, workspace: Workspace) -> Aggregated:
    """From the uploads in the workspace to the aggregated model in `model/`.

    Raises
    ------
    ConfigError: fewer fit uploads than the quorum, or a setting that does not work out.
    """
    with workspace.stage("admission"):
        uploads, refused = admit(workspace, config)
    if len(uploads) < config.federation.min_clients:
        reasons = "; ".join(f"{client}: {reason}" for client, reason in refused.items())
        raise ConfigError(
            f"{len(uploads)} fit uploads, but 'min-clients' is {config.federation.min_clients} ({reasons})"
        )
    synthesise(config, workspace, uploads)
    if not aggregation.is_saved(workspace, uploads):
        with workspace.stage("distillation"):
            synthetic = synthetic_set.load(config, workspace, uploads)

            def on_epoch(entry: dict[str, float]) -> None:
                workspace.log("loss", series="distillation", step=entry["epoch"], value=entry["loss"])

            distilled = aggregation.distil_from(config, uploads, synthetic, default_device(), on_epoch)
            aggregation.save(workspace, config, uploads, distilled)
    description = json.loads((workspace.model / "model.json").read_text())
    return Aggregated(read_tensors(workspace.model / "model.safetensors")[0], description)


def synthesise(config: Config, workspace: Workspace, uploads: list[Upload]) -> None:
    """Draw what is missing for every client, and for the unguided rival, on all of this machine's GPUs or cores."""
    location.check_classes(config.synthesis.diffusion_model, union_of_names([upload.class_names for upload in uploads]))
    methods = _methods(config, uploads)
    for method in methods:
        _remove_unplanned(config, workspace, uploads, method)
    missing = [method for method in methods if not _is_drawn(config, workspace, uploads, method)]
    total = estimate.num_images(config, uploads)
    workspace.log(
        "plan", images=total, classes=len(union_of_names([upload.class_names for upload in uploads])), methods=missing
    )
    with launch.workers(workspace, launch.num_processes(config, uploads), missing) as workers:
        for method in methods:
            stage = "synthesis" if method == "fedlmg" else method

            def on_progress(completed: int, stage: str = stage, method: str = method) -> None:
                workspace.log("progress", stage=stage, completed=min(completed, total), total=total, unit="images")
                for client, losses in traces.newest(workspace, uploads, method).items():
                    for kind, value in losses.items():
                        workspace.log("loss", series=f"{kind}, {client}", step=completed, value=value)

            with workspace.stage(stage) as details:
                before = launch.num_drawn(workspace, method)
                workers.wait(method, partial(_is_drawn, config, workspace, uploads, method), on_progress)
                details["images"] = launch.num_drawn(workspace, method) - before


def _methods(config: Config, uploads: list[Upload]) -> tuple[str, ...]:
    """Also those of the rivals, where they are measured."""
    return METHODS if config.distillation.compare and compare.test_sets(config, uploads) else METHODS[:1]


def _remove_unplanned(config: Config, workspace: Workspace, uploads: list[Upload], method: str) -> None:
    """Images of clients that are no more, of classes that are spelt otherwise since another client came or went, and
    those whose scores a power cut took."""
    planned = {
        drawing.path(folder)
        for upload in uploads
        for folder in [workspace.synthetic(upload.client, method)]
        for drawing in _drawings(config, upload)
    }
    drawn = list(workspace.synthetic("any", method).parent.glob("*/*/[!.]*.png"))
    folders = {path.parents[1] for path in drawn}
    known = {folder / file for folder in folders for file in scores.read(folder)}
    for path in drawn:
        if path not in planned or path not in known:
            path.unlink()


def _drawings(config: Config, upload: Upload) -> list[plan.Drawing]:
    return plan.drawings(config.seed, upload.client, upload.class_names, config.synthesis.images_per_class)


def _is_drawn(config: Config, workspace: Workspace, uploads: list[Upload], method: str) -> bool:
    return all(
        plan.is_drawn(_drawings(config, upload), workspace.synthetic(upload.client, method)) for upload in uploads
    )


def report(
    config: Config,
    workspace: Workspace,
    evaluations: dict[str, float],
    missing: dict[str, str],
    unevaluated: dict[str, str],
) -> None:
    """Measure rivals where their data is at hand; write the report and the model's card.

    evaluations: the aggregated model's accuracy by client, in [0, 1]; missing: by client, why no upload came;
    unevaluated: by client, why no evaluation did.
    """
    uploads, refused = admit(workspace, config)
    methods, histories, matrix, confusion = {}, {}, {}, None
    if config.distillation.compare and (tests := compare.test_sets(config, uploads)):
        with workspace.stage("rivals"):
            methods, matrix = compare.without_training(uploads, tests, default_device())
            confusion = compare.confusion_of_aggregated(config, workspace, uploads, tests, default_device())
            completed = 0

            def on_progress(count: int) -> None:
                nonlocal completed
                completed += count
                workspace.log(
                    "progress", stage="rivals", completed=completed, total=len(compare.TRAINED), unit="models"
                )

            trained, histories = compare.with_training(config, workspace, uploads, tests, default_device(), on_progress)
            methods |= trained
    description = json.loads((workspace.model / "model.json").read_text())
    histories.setdefault(f"fedlmg-{description['aggregation']}", description["history"])
    verdicts = aggregation.verdicts(workspace)
    clients = {
        upload.client: {
            "quality": verdicts[upload.client]["quality"],
            "weight": verdicts[upload.client]["weight"],
            "weight_reason": verdicts[upload.client]["reason"],
            "architecture": upload.manifest["architecture"],
            "num_examples": upload.manifest["training"]["num_examples"],
            "upload_bytes": upload.num_bytes,
            "own_accuracy": upload.manifest["training"]["test_accuracy"],
            "own_accuracy_all_clients": _mean(matrix.get(upload.client, {}).values()),
            "aggregated_accuracy": evaluations.get(upload.client),
            "membership": upload.manifest.get("membership"),
            "privacy": upload.manifest.get("privacy"),
            "images": drawn.summary(workspace.synthetic(upload.client), description["rejected"].get(upload.client, {})),
        }
        for upload in uploads
    }
    stages, images = workspace.stage_totals(), workspace.stage_totals("images")
    content = results.build(
        seed=config.seed,
        config=config.to_run_config(),
        clients=clients,
        aggregated={
            "aggregation": description["aggregation"],
            "architecture": description["architecture"],
            "accuracy": _mean(evaluations.values()),
        },
        methods=methods,
        synthesis={
            "num_images": estimate.num_images(config, uploads),
            "seconds": stages["synthesis"],
            "images_per_second": images["synthesis"] / max(stages["synthesis"], 1e-9),
            "rejected": description["rejected"],
        },
        stages=stages,
        missing=missing,
        refused=refused,
        unevaluated=unevaluated,
        matrix=matrix,
        confusion=confusion,
    )
    write_json(workspace.report / "histories.json", histories)
    write_json(workspace.report / "results.json", content)
    write_bytes(workspace.model / "MODEL_CARD.md", model_card.render(content, description["class_names"]).encode())
    write_bytes(workspace.report / "index.html", page.render(workspace.root, content).encode())


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None
