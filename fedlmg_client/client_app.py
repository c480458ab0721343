"""The Flower ClientApp: train once and upload, then take the aggregated model and say how good it is here."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from common import architectures, label_maps, labels
from common.checkpoint import write_tensors
from common.config import Config
from common.datasets.client_data import ClientData, cache_path, client_name, load_client_data, virtual_index
from common.files import write_json
from common.metrics import accuracy, predict
from common.preprocessing import PreprocessSpec
from common.upload import megabytes
from fedlmg_client import faults
from fedlmg_client.training import train

app = ClientApp()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@app.train()
def train_and_upload(message: Message, context: Context) -> Message:
    """Reply: the upload, or its manifest alone when the server already holds these weights.

    `config` record: `have`, JSON of client name -> sha256 of the weights that the server holds;
    `max-upload-megabytes`, above which a client says so and sends nothing.
    """
    config = Config()
    try:
        config = Config.from_run_config(context.run_config)
        data = load_client_data(context.node_config, config)
        cache = cache_path(context.node_config, config)
        architecture = _architecture(context, config)
        fault = faults.of(data, config)
        data, settings = faults.spoil_data(fault, data, config.seed), faults.spoil_settings(fault, config.training)
        settings = replace(settings, initialisation=_initialisation(context, config))
        upload = train(data, architecture, settings, config.seed, data.name, cache, device())
        upload = faults.add_noise(upload, virtual_index(data.source, config), config)
        records = faults.spoil_upload(fault, upload).to_records()
        _check_size(records, float(message.content["config"]["max-upload-megabytes"]))
    except (ValueError, OSError) as error:
        return _failure(error, message, client_name(context.node_config, config))
    finally:
        _free()
    if json.loads(message.content["config"]["have"]).get(data.name) == upload.manifest["sha256"]:
        records = RecordDict({"manifest": records["manifest"]})
    return Message(records, reply_to=message)


@app.evaluate()
def take_and_evaluate(message: Message, context: Context) -> Message:
    """Store the aggregated model in the client's cache and measure it on the client's own test images.

    `arrays` record: state dict; `config` record: `model`, JSON of architecture, class_names and preprocessing.
    """
    config = Config()
    try:
        config = Config.from_run_config(context.run_config)
        data = load_client_data(context.node_config, config)
        folder = cache_path(context.node_config, config) / "aggregated"
        arrays = message.content["arrays"].to_torch_state_dict()
        description = json.loads(message.content["config"]["model"])
        measured = evaluate(arrays, description, data, config)
        store(folder, arrays, description)
    except (ValueError, OSError) as error:
        return _failure(error, message, client_name(context.node_config, config))
    finally:
        _free()
    metrics = MetricRecord({"accuracy": measured, "num-examples": len(data.test)})
    return Message(
        RecordDict({"metrics": metrics, "client": ConfigRecord({"name": data.name})}),
        reply_to=message,
    )


def evaluate(arrays: dict[str, torch.Tensor], description: dict, data: ClientData, config: Config) -> float:
    """Accuracy in [0, 1] on the client's test images, by class name; a class the model lacks counts as wrong."""
    class_names = list(description["class_names"])
    preprocess = PreprocessSpec.from_json(description["preprocessing"])
    model = architectures.build(description["architecture"], len(class_names), preprocess.image_size, config.builders)
    model.load_state_dict(arrays)
    indices = label_maps.find(data.class_names, class_names, labels.parse_aliases(config.federation.class_aliases))
    if not len(data.test):
        return 0.0
    probabilities = predict(model.float().to(device()), preprocess, data.test.images)
    return accuracy(probabilities, indices[data.test.labels])


def store(folder: Path, arrays: dict[str, torch.Tensor], description: dict) -> None:
    """The description is written last: a folder with a `model.json` is whole."""
    (folder / "model.json").unlink(missing_ok=True)
    write_tensors(folder / "model.safetensors", arrays)
    write_json(folder / "model.json", description)


def _architecture(context: Context, config: Config) -> str:
    if name := context.node_config.get("architecture"):
        return str(name)
    names = [name.strip() for name in config.training.architectures.split(",")]
    return names[int(context.node_config.get("partition-id", 0)) % len(names)]


def _initialisation(context: Context, config: Config) -> str:
    return str(context.node_config.get("initialisation", config.training.initialisation))


def _check_size(records: RecordDict, most: float) -> None:
    if (size := megabytes(records)) > most:
        raise ValueError(
            f"its upload has {size:.1f} MB, but the server takes at most {most:g} MB ('max-upload-megabytes'): choose "
            "a smaller 'architecture'"
        )


def _failure(error: Exception, message: Message, name: str) -> Message:
    """A known cause goes back as one sentence under the client's name; anything else is left to Flower."""
    print(f"{name}: {error}", flush=True)
    return Message(RecordDict({"error": ConfigRecord({"client": name, "reason": str(error)})}), reply_to=message)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
