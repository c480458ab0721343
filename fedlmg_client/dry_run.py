"""`fedlmg-client join --dry-run`: show all that a client would send, and send nothing."""

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.clients.data import ClientData
from common.clients.node_config import NodeConfig, cache_path, privacy_of, read_node_config
from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.evaluation import Kind
from common.models import architectures
from common.start import Start
from common.upload import Upload, sizes
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import plan, returned, uploading

MODELS: dict[Kind, str] = {
    "returned": "the returned model",
    "own": "your own model",
    "general": "the server's general model",
    "no_federation": "the general model trained by you alone",
    "personal": "your personal model",
}
OF_A_START: tuple[Kind, ...] = ("general", "no_federation")
"""Models that a client has only after a run with a warm start."""


def show_upload(node_config: NodeConfig, config: Config, console: Console) -> int:
    """Train as a real run would, then print every part of the upload with its size, the text of the manifest, and what
    is told after the round.

    Returns the total number of bytes. A classifier that needs no start is kept: joining with the same settings sends
    it.

    Raises
    ------
    ValueError: the client's data or settings cannot be used.
    """
    data = uploading.load_data(node_config, config)
    answer = plan.make_answer(node_config, config, data, cache_path(node_config, config))
    # Of `both` classifiers the server offers a start to the copy alone.
    started = config.distillation.student_architecture if answer.upload == "both" else answer.architecture
    start = _imagine_start(started, data, config) if answer.warm_start else None
    upload = uploading.make_promised_upload(node_config, config, data, answer, start)
    total = _print_upload(upload, console)
    if start:
        console.print(
            f"In a round, '{started}' starts from the server's model, where the server has one, and has an output for "
            "every class of the run. Here an untrained model with your classes took that place, so its weights and all "
            "that has a row for each class will differ"
        )
    console.print(_describe_evaluation(node_config, config, len(data.test)))
    return total


def _imagine_start(architecture: str, data: ClientData, config: Config) -> Start:
    """An untrained model in place of the one that the server offers, without images to replay."""
    size = config.training.image_size
    torch.manual_seed(config.seed)
    model = architectures.build(architecture, len(data.class_names), size, plan.trusted_builders(architecture, config))
    preprocess = PreprocessSpec.of(size, config.distillation.student_initialisation)
    nothing = LabeledImages(torch.zeros(0, 3, size, size, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    return Start(data.class_names, preprocess, config.general.looks, {architecture: model.state_dict()}, nothing)


def _print_upload(upload: Upload, console: Console) -> int:
    """Print the parts and the manifest; returns the total number of bytes."""
    records = upload.to_records()
    parts = sizes(records)
    table = Table("part", "type", "shape", "bytes", title="What would be sent")
    for record, arrays in records.array_records.items():
        for name, array in arrays.items():
            size = str(parts[f"{record}/{name}"])
            table.add_row(escape(f"{record}/{name}"), array.dtype, "x".join(map(str, array.shape)), size)
    table.add_row("manifest/json", "text", "", str(parts["manifest/json"]))
    console.print(table)
    console.print(escape(str(records["manifest"]["json"])), soft_wrap=True)
    total = sum(parts.values())
    console.print(f"{total} bytes in {len(parts)} parts; nothing was sent")
    return total


def _describe_evaluation(node_config: NodeConfig, config: Config, num_images: int) -> str:
    """What the client tells when it has measured the returned model, in a sentence; num_images: for testing."""
    when = "When the returned model arrives, the client tells"
    if not read_node_config(node_config).share_evaluation:
        return f"{when} nothing, as you refused"
    if not num_images:
        return f"{when} no accuracy, for you have no test images"
    untold = () if config.general.warm_start else OF_A_START
    if privacy_of(node_config, config).dp_epsilon:
        untold = (*untold, *returned.BEYOND_BUDGET)
    models = ", ".join(name for kind, name in MODELS.items() if kind not in untold)
    return (
        f"{when} the number of your test images, {num_images}, and on them the accuracy and the balanced accuracy of "
        f"these: {models}"
    )
