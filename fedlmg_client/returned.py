"""The returned model on the client: it is kept in the cache and measured on the client's own test images."""

from pathlib import Path

import torch

from common import labels
from common.clients.data import ClientData, load_client_data
from common.clients.node_config import NodeConfig, cache_path
from common.config import Config
from common.devices import default_device
from common.evaluation import Evaluation
from common.labels import maps
from common.models import architectures
from common.start import Start
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.vision.metrics import accuracy, count_confusions, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client.status import ModelStored, append_event


def take(
    node_config: NodeConfig, config: Config, arrays: dict[str, torch.Tensor], description: dict, start: Start | None
) -> Evaluation:
    """Keep and measure the returned model.

    description: its architecture, class_names and preprocessing. start: what the server says besides, if anything.

    Raises
    ------
    ValueError: the model cannot be built from its description, or the data cannot be read.
    """
    data, cache = load_client_data(node_config, config), cache_path(node_config, config)
    measured = evaluate_model(arrays, description, data, config)
    store_model(cache / "aggregated", arrays, description, measured)
    append_event(cache, ModelStored(accuracy=measured["accuracy"] if len(data.test) else None))
    if not len(data.test):
        return Evaluation(num_examples=0)
    return Evaluation(num_examples=len(data.test), returned=measured["accuracy"])


def evaluate_model(arrays: dict[str, torch.Tensor], description: dict, data: ClientData, config: Config) -> dict:
    """Measure the model on the client's test images; images of a class that the model lacks count as wrong.

    Returns
    -------
    dict of
        client: its name.
        accuracy: in [0, 1]; 0 without test images.
        class_names: the client's classes.
        correct: for each class of the client, the model's index of that class, or -1 if the model lacks it.
        confusion: counts of images; rows are the client's classes, columns the model's.
    """
    class_names = list(description["class_names"])
    preprocess = PreprocessSpec.from_json(description["preprocessing"])
    model = architectures.build(description["architecture"], len(class_names), preprocess.image_size, config.builders)
    model.load_state_dict(arrays)
    indices = maps.find_indices(data.class_names, class_names, labels.parse_aliases(config.clients.class_aliases))
    measured, table = 0.0, torch.zeros(len(data.class_names), len(class_names), dtype=torch.long)
    if len(data.test):
        probabilities = predict(model.float().to(default_device()), preprocess, data.test.images)
        measured = accuracy(probabilities, indices[data.test.labels])
        table = count_confusions(probabilities, data.test.labels, len(data.class_names))
    return {
        "client": data.name,
        "accuracy": measured,
        "class_names": data.class_names,
        "correct": indices.tolist(),
        "confusion": table.tolist(),
    }


def store_model(folder: Path, arrays: dict[str, torch.Tensor], description: dict, measured: dict) -> None:
    """Write the model and its evaluation to `folder`.

    `model.json` is written last, so a folder that has one is complete. `evaluation.json` never leaves the client.
    """
    (folder / "model.json").unlink(missing_ok=True)
    write_tensors(folder / "model.safetensors", arrays)
    write_json(folder / "evaluation.json", measured)
    write_json(folder / "model.json", description)
