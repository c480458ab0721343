"""What makes an upload unfit: checks in the order of their cost, from its class names to a forward pass on noise.

Its manifest was checked when it was read (`common/manifest.py`). Nothing of an upload is trusted before its check, and
no text of it becomes a path, an import or a tensor's size.
"""

from collections.abc import Callable, Collection

import torch
from accelerate import init_empty_weights

from common import labels
from common.clients.data import virtual_index
from common.config.run import Config, LocalTrainingConfig
from common.contracts import shown
from common.models import architectures, feature_statistics
from common.upload import Upload, weights_digest

LARGEST_WEIGHTS = 1e4
"""Of a tensor of weights, and of a layer's means: root mean square (ours: trained nets stay below a few hundred)."""
LARGEST_VARIANCES = LARGEST_WEIGHTS**2
WIRE_DTYPES = (torch.float16, torch.float32)


class Refused(ValueError):
    """One sentence: which client's upload is unfit, and why."""


def check(upload: Upload, config: Config) -> None:
    """Raises Refused, naming the client, unless the upload is what its manifest says and fits this run."""
    try:
        for step in STEPS:
            step(upload, config)
    except Refused as refusal:
        raise Refused(f"client '{upload.client}': {refusal}") from None


def _class_names(upload: Upload, config: Config) -> None:
    try:
        labels.check_distinct(upload.class_names, labels.parse_aliases(config.clients.class_aliases))
    except ValueError as error:
        raise Refused(str(error)) from None


def _image_size(upload: Upload, config: Config) -> None:
    if (size := upload.preprocess.image_size) != config.training.image_size:
        raise Refused(f"it trained on images of {size} pixels; this run's 'image-size' is {config.training.image_size}")


def _data(upload: Upload, config: Config) -> None:
    data = upload.manifest.data
    has_virtual_clients = bool(config.simulation.dataset or config.simulation.folders)
    is_virtual = has_virtual_clients and virtual_index(data, config) is not None
    if data != "folder" and not is_virtual:
        raise Refused(f"its 'data' is {shown(data)}, not 'folder' or a virtual client of this run")


def _architecture(upload: Upload, config: Config) -> None:
    name = upload.manifest.architecture
    known = architectures.base_architecture(name)
    if architectures.is_builder(known):
        if known not in config.builders:
            raise Refused(
                f"it names the builder {shown(name)}, which this server imports only if its 'architectures' name it"
            )
    elif known not in architectures.list_names():
        raise Refused(f"it uploaded a {shown(name)}, which this server does not know")


def _keys_and_shapes(upload: Upload, config: Config) -> None:
    name, size = upload.manifest.architecture, config.training.image_size
    try:
        with init_empty_weights():
            expected = architectures.build(name, len(upload.class_names), size, config.builders).state_dict()
    except Exception as error:  # A builder of the operator's may raise anything.
        raise Refused(f"its architecture cannot be built here: {error}") from None
    if different := sorted(set(expected) ^ set(upload.arrays)):
        raise Refused(f"its weights do not fit the architecture, first at {shown(different[0])}")
    for key, tensor in upload.arrays.items():
        if tensor.shape != expected[key].shape:
            raise Refused(f"'{key}' has shape {list(tensor.shape)}, not {list(expected[key].shape)}")
        fitting = WIRE_DTYPES if expected[key].is_floating_point() else (expected[key].dtype,)
        if tensor.dtype not in fitting:
            raise Refused(f"'{key}' has dtype {tensor.dtype}, not {' or '.join(map(str, fitting))}")


def _signature(upload: Upload, config: Config) -> None:
    if weights_digest(upload.arrays) != upload.manifest.sha256:
        raise Refused("its weights are not those that its manifest signs: ask it to send them again")


def _weights(upload: Upload, config: Config) -> None:
    for key, tensor in upload.arrays.items():
        is_variance = key.endswith("running_var")
        _check_values(f"'{key}'", tensor, LARGEST_VARIANCES if is_variance else LARGEST_WEIGHTS)
        if is_variance and (tensor < 0).any():
            raise Refused(f"a variance of '{key}' is negative")


def _classifier(upload: Upload, config: Config) -> None:
    classifier = upload.classifier()
    layers = feature_statistics.tapped_layers(classifier)
    _check_statistics(upload, layers)
    _check_forward(upload, classifier, layers, config.training)


def _check_statistics(upload: Upload, known: Collection[str]) -> None:
    for layer, moments in upload.statistics.items():
        if layer not in known:
            raise Refused(f"its statistics are of an unknown layer {shown(layer)}")
        for kind, tensor, largest in (
            ("means", moments.mean, LARGEST_WEIGHTS),
            ("variances", moments.variance, LARGEST_VARIANCES),
        ):
            if tensor.dtype != torch.float32 or tensor.dim() not in (1, 2, 3):
                raise Refused(f"the {kind} of '{layer}' are no vectors of float32")
            _check_values(f"its statistics, the {kind} of '{layer}'", tensor, largest)
        if (moments.variance < 0).any():
            raise Refused(f"a variance of '{layer}' is negative")


def _check_values(what: str, tensor: torch.Tensor, largest: float) -> None:
    values = tensor.double()
    if not torch.isfinite(values).all():
        raise Refused(f"{what}: not finite")
    if tensor.is_floating_point() and tensor.numel() and values.square().mean().sqrt() > largest:
        raise Refused(f"{what}: implausibly large")


@torch.no_grad()
def _check_forward(
    upload: Upload, classifier: torch.nn.Module, layers: Collection[str], asked: LocalTrainingConfig
) -> None:
    size = upload.preprocess.image_size
    noise = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with feature_statistics.recording(classifier, layers) as recorded:
            logits = classifier(upload.preprocess(noise))
    except Exception as error:  # A net of a builder of the operator's may raise anything.
        raise Refused(f"its classifier fails on noise: {error}") from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (8, len(upload.class_names)):
        raise Refused("its classifier does not give one number for each class")
    if not torch.isfinite(logits).all():
        raise Refused("its classifier's output on noise is not finite")
    if logits.std(0).max() <= 1e-7 * logits.abs().max():
        raise Refused("its classifier says the same of every image")
    if not upload.statistics:
        return  # Withheld: the classifier guides by its labels alone.
    for layer, seen in recorded.items():
        if layer not in upload.statistics:
            raise Refused(f"its statistics lack the layer '{layer}'")
        sent = upload.statistics[layer]
        of_all = [seen.mean.shape[1]]
        wanted = [of_all]
        if asked.statistics != "global":
            wanted.append([len(upload.class_names), *of_all])
            wanted += [[asked.num_clusters, *wanted[-1]]] if asked.num_clusters > 1 else []
        if list(sent.mean.shape) not in wanted or sent.mean.shape != sent.variance.shape:
            shapes = " or ".join(map(str, wanted))
            raise Refused(f"its statistics of '{layer}' do not have the shape {shapes} that this run takes")


STEPS: tuple[Callable[[Upload, Config], None], ...] = (
    *(_class_names, _image_size, _data, _architecture),
    *(_keys_and_shapes, _weights, _signature, _classifier),
)
