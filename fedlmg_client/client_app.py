"""The Flower ClientApp: train once and upload, then take the aggregated model and say how good it is here."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from common import labels
from common.clients.data import ClientData, load_client_data, virtual_index
from common.clients.node_config import NodeConfig, cache_path, client_name
from common.config import Config
from common.devices import default_device
from common.labels import maps
from common.models import architectures
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.upload import megabytes, sizes
from common.vision.metrics import accuracy, confusion, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import faults, probe
from fedlmg_client.audit import FEWEST
from fedlmg_client.status import tell
from fedlmg_client.training import train

app = ClientApp()
OWN_KEYS = ("initialisation", "dp-epsilon", "dp-delta", "dp-max-grad-norm", "max-membership-auc")
"""Of the run's config: a client's node config may set them otherwise."""


@app.train()
def train_and_upload(message: Message, context: Context) -> Message:
    """Reply: the upload, or its manifest alone when the server already holds these weights.

    `config` record: `have`, JSON of client name -> sha256 of the weights that the server holds; `forgotten`, JSON of
    names that are not to answer; `max-upload-megabytes`, above which a client says so and sends nothing.
    """
    config = Config()
    try:
        config = Config.from_run_config(context.run_config)
        question = message.content["config"]
        name = client_name(context.node_config, config)
        if name in json.loads(str(question.get("forgotten", "[]"))):
            raise ValueError("the server was told to forget it, so it sends nothing")
        records = make_upload(context.node_config, config)
        _check_size(records, float(question["max-upload-megabytes"]))
    except (ValueError, OSError) as error:
        return _failure(error, message, context, config)
    finally:
        _free()
    if json.loads(question["have"]).get(name) == json.loads(records["manifest"]["json"])["sha256"]:
        records = RecordDict({"manifest": records["manifest"]})
    tell(cache_path(context.node_config, config), "uploading", bytes=sum(sizes(records).values()))
    return Message(records, reply_to=message)


def make_upload(node_config: NodeConfig, config: Config) -> RecordDict:
    """Train, or read what was trained before, and return what is to be sent.

    Raises
    ------
    ValueError: data, architecture or initial weights that cannot be used.
    """
    data, cache = load_client_data(node_config, config), cache_path(node_config, config)
    fault = faults.of(data, config)
    own = {key: node_config[key] for key in OWN_KEYS if key in node_config}
    config = Config.from_run_config(config.to_run_config() | own)
    data, settings = faults.spoil_data(fault, data, config.seed), faults.spoil_settings(fault, config.training)
    architecture = _architecture(node_config, config, data, cache)
    upload = train(data, architecture, settings, config.seed, data.name, cache, default_device())
    _check_membership(upload.manifest.get("membership"), settings.max_membership_auc)
    if upload.manifest.get("privacy"):
        # The budget pays for the weights alone.
        upload = replace(upload, manifest=upload.manifest | {"membership": None})
    upload = faults.add_noise(upload, virtual_index(data.source, config), config)
    return faults.spoil_upload(fault, upload).to_records()


@app.evaluate()
def take_and_evaluate(message: Message, context: Context) -> Message:
    """Store the aggregated model in the client's cache and measure it on the client's own test images.

    `arrays` record: state dict; `config` record: `model`, JSON of architecture, class_names and preprocessing.
    """
    config = Config()
    try:
        config = Config.from_run_config(context.run_config)
        data, cache = load_client_data(context.node_config, config), cache_path(context.node_config, config)
        tell(cache, "evaluating")
        arrays = message.content["arrays"].to_torch_state_dict()
        description = json.loads(message.content["config"]["model"])
        measured = evaluate(arrays, description, data, config)
        store(cache / "aggregated", arrays, description, measured)
    except (ValueError, OSError) as error:
        return _failure(error, message, context, config)
    finally:
        _free()
    tell(cache, "model", accuracy=measured["accuracy"] if len(data.test) else None)
    metrics = MetricRecord({"accuracy": measured["accuracy"], "num-examples": len(data.test)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def evaluate(arrays: dict[str, torch.Tensor], description: dict, data: ClientData, config: Config) -> dict:
    """How the model does on the client's test images, by class name; a class the model lacks counts as wrong.

    Returns client; accuracy in [0, 1], 0 without test images; class_names, the client's; correct, the column that is
    right for each of them, -1 where the model lacks it; confusion, counts, row the client's class, column the model's.
    """
    class_names = list(description["class_names"])
    preprocess = PreprocessSpec.from_json(description["preprocessing"])
    model = architectures.build(description["architecture"], len(class_names), preprocess.image_size, config.builders)
    model.load_state_dict(arrays)
    indices = maps.find(data.class_names, class_names, labels.parse_aliases(config.federation.class_aliases))
    measured, table = 0.0, torch.zeros(len(data.class_names), len(class_names), dtype=torch.long)
    if len(data.test):
        probabilities = predict(model.float().to(default_device()), preprocess, data.test.images)
        measured = accuracy(probabilities, indices[data.test.labels])
        table = confusion(probabilities, data.test.labels, len(data.class_names))
    return {
        "client": data.name,
        "accuracy": measured,
        "class_names": data.class_names,
        "correct": indices.tolist(),
        "confusion": table.tolist(),
    }


def store(folder: Path, arrays: dict[str, torch.Tensor], description: dict, measured: dict) -> None:
    """The description is written last: a folder with a `model.json` is whole. `evaluation.json` stays on the client."""
    (folder / "model.json").unlink(missing_ok=True)
    write_tensors(folder / "model.safetensors", arrays)
    write_json(folder / "evaluation.json", measured)
    write_json(folder / "model.json", description)


def _architecture(node_config: NodeConfig, config: Config, data: ClientData, cache: Path) -> str:
    name = str(node_config.get("architecture", ""))
    if name == probe.AUTO:
        return probe.choose_once(cache, config, len(data.class_names), len(data.train), default_device())
    names = [name.strip() for name in config.training.architectures.split(",")]
    return name or names[int(node_config.get("partition-id", 0)) % len(names)]


def _check_membership(found: dict | None, most: float) -> None:
    if not found and most < 1:
        raise ValueError(
            f"'max-membership-auc' is {most:g}, but with fewer than {FEWEST} training images, or as few others, nobody "
            "can tell what its model gives away, so nothing was sent: add images, or clear the key"
        )
    if found and found["auc"] > most:
        raise ValueError(
            f"its model tells training images from others with an AUC of {found['auc']:.2f}, above the "
            f"'max-membership-auc' of {most:g}, so nothing was sent: train for fewer epochs, or set 'dp-epsilon'"
        )


def _check_size(records: RecordDict, most: float) -> None:
    if (size := megabytes(records)) > most:
        raise ValueError(
            f"its upload has {size:.1f} MB, but the server takes at most {most:g} MB ('max-upload-megabytes'): choose "
            "a smaller 'architecture'"
        )


def _failure(error: Exception, message: Message, context: Context, config: Config) -> Message:
    """A known cause goes back as one sentence under the client's name; anything else is left to Flower."""
    name = client_name(context.node_config, config)
    print(f"{name}: {error}", flush=True)
    tell(cache_path(context.node_config, config), "failed", reason=str(error))
    return Message(RecordDict({"error": ConfigRecord({"client": name, "reason": str(error)})}), reply_to=message)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
