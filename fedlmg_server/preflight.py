"""Before any client is asked: whatever the settings name is looked at, so that nothing fails when all have trained.

Nets are built and run by shapes alone, files are looked for, configs are opened; no image is read.
"""

import difflib
import importlib.util
import warnings
from pathlib import Path

from accelerate import init_empty_weights

from common import labels
from common.clients import virtual, virtual_folders
from common.config import Config, ConfigError
from common.config.simulation import NUM_CLASSES, classes_of
from common.datasets.embedded import registry
from common.datasets.readers.finding import find_listing
from common.datasets.readers.listing import FolderError
from common.labels.left_out import explain_left_out
from common.models import architectures, pretrained
from common.storage.tensors import read_tensors
from common.vision.preprocessing import IMAGENET
from fedlmg_server.collection.classes import explain_excess, find_unusable
from fedlmg_server.diffusion.description import describe
from fedlmg_server.diffusion.inspection import check_decoder, check_pipeline
from fedlmg_server.diffusion.vocabulary import Vocabulary
from fedlmg_server.networks import check_network


def check_config(config: Config) -> None:
    """
    Raises
    ------
    ConfigError: a setting of a run that could only fail later; the message names its key.
    """
    drawn = config.synthesis
    vocabulary = check_pipeline(drawn)
    if drawn.guidance_decoder:
        check_decoder(drawn.guidance_decoder, drawn.diffusion_model)
    if drawn.diffusion_lora:
        from fedlmg_server.diffusion.lora import check_lora  # Diffusers takes seconds to import.

        check_lora(drawn.diffusion_lora, describe(drawn.diffusion_model))
    if config.general.public_images:
        _list_classes("public-images", config.general.public_images)
    if config.distillation.aggregation == "merge" and not config.general.warm_start:
        raise ConfigError("'aggregation' is 'merge', but clients share no start: set 'warm-start', or another one")
    _check_networks(config)
    if config.distillation.student_initialisation:
        _check_student_initialisation(config)
    if config.simulation.dataset or config.simulation.folders:
        _check_virtual_clients(config, vocabulary)


def _check_networks(config: Config) -> None:
    suffix = architectures.GROUP_NORM if config.simulation.dp_epsilon else ""
    student = config.distillation.student_architecture
    found = {**{name: "architectures" for name in config.training.architecture_names}, student: "student-architecture"}
    for name, key in found.items():
        known = architectures.list_names()
        if not architectures.is_builder(name) and architectures.base_architecture(name) not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ConfigError(f"config key '{key}' names '{name}', no architecture; the nearest is {nearest}")
        for each in dict.fromkeys([name, name if name.endswith(suffix) else name + suffix]):
            try:
                check_network(each, NUM_CLASSES, config.training.image_size, config.builders)
            except ValueError as error:
                raise ConfigError(f"config key '{key}': {error}") from None


def _check_student_initialisation(config: Config) -> None:
    source, student = config.distillation.student_initialisation, config.distillation.student_architecture
    if source == "average":
        is_virtual = config.simulation.dataset or config.simulation.folders
        own = config.training.upload != "student" or not config.general.warm_start
        if is_virtual and own and student not in config.training.architecture_names[: config.clients.num_clients]:
            raise ConfigError(f"config key 'student-initialisation': no client uploads a '{student}' to average")
    elif source == IMAGENET:
        _check_imagenet("student-initialisation", student)
    else:
        try:
            read_tensors(Path(source))
        except (OSError, ValueError) as error:
            raise ConfigError(f"config key 'student-initialisation': {source} cannot be read ({error})") from None


def _check_imagenet(key: str, name: str) -> None:
    try:
        pretrained.digest(architectures.base_architecture(name), IMAGENET)
    except ValueError as error:
        raise ConfigError(f"config key '{key}': {error}") from None


def _check_virtual_clients(config: Config, vocabulary: Vocabulary) -> None:
    """What a real client checks of itself, where the server's machine plays all clients."""
    if config.simulation.dp_epsilon and not importlib.util.find_spec("opacus"):
        raise ConfigError("config key 'dp-epsilon' needs the extra 'privacy': install it, or set the key to 0")
    if config.training.initialisation:
        for name in config.training.architecture_names[: config.clients.num_clients]:
            _check_initialisation(config, name)
    spaces = virtual_classes(config)
    aliases = labels.parse_aliases(config.clients.class_aliases)
    spelt = labels.in_one_spelling({"": list(vocabulary.names or ()), **spaces}, aliases)
    spelt.pop("")
    unusable, gone = find_unusable(spelt, vocabulary), {}
    for client, names in spelt.items():
        why = unusable.get(client, {})
        if why and (len(why) == len(names) or config.clients.unknown_classes == "quarantine"):
            gone[client] = explain_left_out(why)
        elif excess := explain_excess(len(names), len(names) - len(why), config):
            gone[client] = excess
    if len(spelt) - len(gone) < config.clients.min_clients:
        client, reason = next(iter(gone.items()))
        raise ConfigError(
            f"'min-clients' is {config.clients.min_clients}, but only {len(spelt) - len(gone)} of {len(spelt)} virtual "
            f"clients can take part ('{client}': {reason}): set 'diffusion-model' to a model that knows their classes"
        )


def _check_initialisation(config: Config, name: str) -> None:
    source = config.training.initialisation
    if source == IMAGENET:
        _check_imagenet("initialisation", name)
        return
    try:
        with init_empty_weights(), warnings.catch_warnings(action="ignore"):
            net = architectures.build(name, NUM_CLASSES, config.training.image_size, config.builders)
            pretrained.initialise(net, architectures.base_architecture(name), source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"config key 'initialisation': {error}") from None


def virtual_classes(config: Config) -> dict[str, list[str]]:
    """Name of each virtual client -> the classes that it may hold, as far as file names tell."""
    names = list(registry.find_dataset(config.simulation.dataset).class_names)
    listed = [_list_classes("folders", str(path)) for path in virtual_folders.list_paths(config)] or [names]
    found = {}
    for index in range(config.clients.num_clients):
        there = listed[index % len(listed)]
        try:
            held = classes_of(config.simulation, index, len(there))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        found[virtual.name_client(index, config)] = [there[label] for label in held]
    return found


def _list_classes(key: str, folder: str) -> list[str]:
    """The classes of a folder of images, sorted.

    Raises
    ------
    ConfigError: it is none.
    """
    try:
        listing = find_listing(Path(folder).expanduser().absolute())
    except (FolderError, OSError) as error:
        raise ConfigError(f"config key '{key}': {error}") from None
    return sorted({entry.label for entry in listing.entries})
