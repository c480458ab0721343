"""The Flower ClientApp: train once and upload, then store the aggregated model and measure it on this client."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from common import labels, manifest
from common.clients.data import ClientData, load_client_data, virtual_index
from common.clients.node_config import NodeConfig, cache_path, client_name, privacy_of, read_node_config
from common.config import Config
from common.devices import default_device, release_cached_memory
from common.labels import maps
from common.manifest import Membership
from common.models import architectures
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.upload import megabytes, sizes
from common.vision.metrics import accuracy, count_confusions, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import faults, probe
from fedlmg_client.audit import FEWEST
from fedlmg_client.status import EvaluationStarted, Failed, ModelStored, UploadStarted, append_event
from fedlmg_client.training import train

app = ClientApp()


@app.train()
def train_and_upload(message: Message, context: Context) -> Message:
    """Reply with the upload, or with its manifest alone if the server already holds these weights.

    The message's `config` record holds `have`, a JSON object of client name -> sha256 of the weights that the server
    holds; `forgotten`, a JSON list of clients that must send nothing; `max-upload-megabytes`, the largest upload.
    """
    config = Config()
    try:
        config = Config.from_run_config(context.run_config)
        question = message.content.config_records["config"]
        name = client_name(context.node_config, config)
        if name in json.loads(str(question.get("forgotten", "[]"))):
            raise ValueError("the server's operator removed this client from the run, so nothing was sent")
        records = make_upload(context.node_config, config)
        _check_size(records, float(str(question["max-upload-megabytes"])))
    except (ValueError, OSError) as error:
        return _make_error_reply(error, message, context, config)
    finally:
        release_cached_memory()
    if json.loads(str(question["have"])).get(name) == manifest.parse(records.config_records["manifest"]["json"]).sha256:
        records = RecordDict({"manifest": records["manifest"]})
    append_event(cache_path(context.node_config, config), UploadStarted(bytes=sum(sizes(records).values())))
    return Message(records, reply_to=message)


def make_upload(node_config: NodeConfig, config: Config) -> RecordDict:
    """Train a classifier, or read the one that was trained before, and return its upload as Flower records.

    Raises
    ------
    ValueError: data, architecture or initial weights cannot be used, or the membership AUC is above the client's limit.
    """
    data, cache = load_client_data(node_config, config), cache_path(node_config, config)
    fault = faults.find_fault(data, config)
    own, privacy = read_node_config(node_config), privacy_of(node_config, config)
    training = replace(config.training, initialisation=own.initialisation or config.training.initialisation)
    data, settings = faults.spoil_data(fault, data, config.seed), faults.spoil_settings(fault, training)
    architecture = _choose_architecture(node_config, config, data, cache)
    upload = train(data, architecture, settings, config.seed, data.name, cache, default_device(), privacy)
    _check_membership(upload.manifest.membership, privacy.max_membership_auc)
    if upload.manifest.privacy:
        # The privacy budget covers the weights only, so the audit's figures are not sent.
        upload = replace(upload, manifest=upload.manifest.model_copy(update={"membership": None}))
    upload = faults.add_noise(upload, virtual_index(data.source, config), config)
    return faults.spoil_upload(fault, upload).to_records()


@app.evaluate()
def take_and_evaluate(message: Message, context: Context) -> Message:
    """Store the aggregated model in the client's cache and measure it on the client's own test images.

    The message's `arrays` record holds a state dict. Its `config` record holds `model`, a JSON object of architecture,
    class_names and preprocessing. The reply holds the accuracy and the number of test images.
    """
    config = Config()
    try:
        config = Config.from_run_config(context.run_config)
        data, cache = load_client_data(context.node_config, config), cache_path(context.node_config, config)
        append_event(cache, EvaluationStarted())
        arrays = message.content.array_records["arrays"].to_torch_state_dict()
        description = json.loads(str(message.content.config_records["config"]["model"]))
        measured = evaluate_model(arrays, description, data, config)
        store_model(cache / "aggregated", arrays, description, measured)
    except (ValueError, OSError) as error:
        return _make_error_reply(error, message, context, config)
    finally:
        release_cached_memory()
    append_event(cache, ModelStored(accuracy=measured["accuracy"] if len(data.test) else None))
    metrics = MetricRecord({"accuracy": measured["accuracy"], "num-examples": len(data.test)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


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


def _choose_architecture(node_config: NodeConfig, config: Config, data: ClientData, cache: Path) -> str:
    name = str(node_config.get("architecture", ""))
    if name == probe.AUTO:
        return probe.choose_architecture_once(cache, config, len(data.class_names), len(data.train), default_device())
    names = [name.strip() for name in config.training.architectures.split(",")]
    return name or names[int(node_config.get("partition-id", 0)) % len(names)]


def _check_membership(found: Membership | None, most: float) -> None:
    if not found and most < 1:
        raise ValueError(
            f"'max-membership-auc' is {most:g}, but the membership AUC cannot be measured with fewer than {FEWEST} "
            f"training images or fewer than {FEWEST} held-out images, so nothing was sent: add images, or clear the key"
        )
    if found and found.auc > most:
        raise ValueError(
            f"the membership-inference AUC of the model is {found.auc:.2f}, above the 'max-membership-auc' of "
            f"{most:g}, so nothing was sent: train for fewer epochs, or set 'dp-epsilon'"
        )


def _check_size(records: RecordDict, most: float) -> None:
    if (size := megabytes(records)) > most:
        raise ValueError(
            f"the upload has {size:.1f} MB, but the server accepts at most {most:g} MB ('max-upload-megabytes'): "
            "choose a smaller 'architecture'"
        )


def _make_error_reply(error: Exception, message: Message, context: Context, config: Config) -> Message:
    """A reply that tells the server, in one sentence, why this client cannot answer."""
    name = client_name(context.node_config, config)
    print(f"{name}: {error}", flush=True)
    append_event(cache_path(context.node_config, config), Failed(reason=str(error)))
    return Message(RecordDict({"error": ConfigRecord({"client": name, "reason": str(error)})}), reply_to=message)
