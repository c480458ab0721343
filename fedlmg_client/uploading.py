"""One client's upload: from its settings, its images and the server's start to one or two trained classifiers."""

from collections.abc import Mapping
from dataclasses import replace

from common.answer import Answer
from common.clients.data import ClientData, load_client_data, virtual_index
from common.clients.node_config import NodeConfig, cache_path, privacy_of, read_node_config
from common.config import Config
from common.devices import default_device
from common.manifest import Manifest, Membership
from common.start import Start
from common.telling import ToldError
from common.upload import Upload
from fedlmg_client import faults, plan, student_copy, training
from fedlmg_client.audit import FEWEST


def make_upload(
    node_config: NodeConfig, config: Config, start: Start | None = None, left_out: Mapping[str, str] | None = None
) -> Upload:
    """Train a client's classifiers, or read those that were trained before.

    A classifier that begins at a general model of the start knows all classes of the run. One that has no general
    model begins at its own initial weights. Why a start does not fit is printed.

    left_out: the client's classes that the server cannot use -> why; their images are not trained on, and nothing of
    them is sent.

    Raises
    ------
    ValueError: data, architecture or initial weights cannot be used, or the membership AUC is above the client's limit.
    """
    data = plan.leave_out(load_data(node_config, config), left_out or {})
    answer = plan.make_answer(node_config, config, data, cache_path(node_config, config))
    return make_promised_upload(node_config, config, data, answer, start)


def load_data(node_config: NodeConfig, config: Config) -> ClientData:
    """The client's images, spoilt by the fault of a virtual client."""
    data = load_client_data(node_config, config)
    fault = faults.find_fault(data, config)
    return faults.spoil_class_names(fault, faults.spoil_data(fault, data, config.seed))


def make_promised_upload(
    node_config: NodeConfig, config: Config, data: ClientData, answer: Answer, start: Start | None
) -> Upload:
    """The same as `make_upload`, of loaded images and for an answer that was given."""
    cache = cache_path(node_config, config)
    fault, index = faults.find_fault(data, config), virtual_index(data.source, config)
    own, privacy = read_node_config(node_config), privacy_of(node_config, config)
    settings = replace(config.training, initialisation=own.initialisation or config.training.initialisation)
    settings = faults.spoil_settings(fault, settings)
    own_data = shared_data = data
    if start := plan.take_start(start, answer, data, config):
        shared_data, architecture = plan.relabel(data, start, config), answer.architecture
        # A classifier that starts from no general model knows the client's own classes alone.
        own_data = shared_data if architecture in start.models else data
    else:
        architecture = plan.choose_architecture(node_config, config, data, cache)
    device, looks = default_device(), config.general.looks
    upload = training.train(own_data, architecture, settings, config.seed, cache, device, privacy, start, looks)
    _check_membership(upload.manifest.membership, privacy.max_membership_auc)
    upload = replace(upload, manifest=_leave_untold(upload.manifest, own.share_evaluation))
    student = config.distillation.student_architecture
    if start and answer.upload == "both" and student != architecture and student in start.models:
        copy = student_copy.train(
            shared_data, student, settings, config.seed, cache, device, start, config.builders, looks
        )
        _check_membership(copy.membership, privacy.max_membership_auc)
        upload = copy.add_to(upload)
    return faults.spoil_upload(fault, faults.add_noise(upload, index, config), config)


def _leave_untold(said: Manifest, share_evaluation: bool) -> Manifest:
    """The same without figures that stay on the client; the cached upload keeps them."""
    if said.privacy:
        # The privacy budget covers the weights only, so the audit's figures are not sent.
        said = said.model_copy(update={"membership": None})
    if share_evaluation:
        return said
    training = said.training.model_copy(update={"test_accuracy": None, "test_accuracy_wire": None})
    return said.model_copy(update={"training": training})


def _check_membership(found: Membership | None, most: float) -> None:
    if not found and most < 1:
        raise ToldError(
            f"'max-membership-auc' is {most:g}, but the membership AUC cannot be measured with fewer than {FEWEST} "
            f"training images or fewer than {FEWEST} held-out images, so nothing was sent: add images, or clear the key"
        )
    if found and found.auc > most:
        raise ToldError(
            f"the membership-inference AUC of the model is {found.auc:.2f}, above the 'max-membership-auc' of "
            f"{most:g}, so nothing was sent: train for fewer epochs, or set 'dp-epsilon'",
            "its model is above its own 'max-membership-auc', so it sent nothing",
        )
