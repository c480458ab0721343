"""What makes an upload unfit: checks in the order of their cost, from its manifest to a forward pass on noise.

Nothing of an upload is trusted before its check, and no text of it becomes a path, an import or a tensor's size.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection

import torch
from accelerate import init_empty_weights

from common import labels
from common.clients.data import virtual_index
from common.config.run import Config, LocalTrainingConfig
from common.models import architectures, feature_statistics
from common.names import LONGEST_NAME, is_sane_name
from common.upload import SCHEMA, Upload, weights_digest

MOST_CLASSES = 100_000
MOST_EPOCHS = 100_000
LARGEST_WEIGHTS = 1e4
"""Of a tensor of weights, and of a layer's means: root mean square (ours: trained nets stay below a few hundred)."""
LARGEST_VARIANCES = LARGEST_WEIGHTS**2
WIRE_DTYPES = (torch.float16, torch.float32)


class Refused(ValueError):
    """One sentence: which client's upload is unfit, and why."""


def check(upload: Upload, config: Config) -> None:
    """Raises Refused, naming the client, unless the upload is what its manifest says and fits this run."""
    name = upload.manifest.get("client") if isinstance(upload.manifest, dict) else None
    shown = f"'{name}'" if is_sane_name(name) else "without a proper name"
    try:
        for step in STEPS:
            step(upload, config)
    except Refused as refusal:
        raise Refused(f"client {shown}: {refusal}") from None


def _schema(upload: Upload, config: Config) -> None:
    if not isinstance(upload.manifest, dict):
        raise Refused("its manifest is not a JSON object")
    schema = upload.manifest.get("schema")
    if not _is_count(schema) or schema != SCHEMA:
        raise Refused(f"it uploaded schema {_shown(schema)}; this server reads {SCHEMA}")


def _client(upload: Upload, config: Config) -> None:
    if not is_sane_name(upload.manifest.get("client")):
        raise Refused(f"its name must be printable and have 1 to {LONGEST_NAME} characters")


def _class_names(upload: Upload, config: Config) -> None:
    names = upload.manifest.get("class_names")
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_CLASSES:
        raise Refused(f"its 'class_names' must be a list of 1 to {MOST_CLASSES} names")
    if bad := [name for name in names if not is_sane_name(name)]:
        raise Refused(
            f"its class {_shown(bad[0])} is no name: class names must be printable, with 1 to {LONGEST_NAME} characters"
        )
    repeated, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise Refused(f"it names the class {_shown(repeated)} more than once")
    try:
        labels.check_distinct(names, labels.parse_aliases(config.clients.class_aliases))
    except ValueError as error:
        raise Refused(str(error)) from None


def _class_counts(upload: Upload, config: Config) -> None:
    counts = upload.manifest.get("class_counts")
    if not isinstance(counts, list) or not all(_is_count(count) for count in counts):
        raise Refused("its 'class_counts' must be whole numbers, at least 0")
    if len(counts) != len(upload.class_names):
        raise Refused(f"it counts the images of {len(counts)} classes, but names {len(upload.class_names)}")


def _preprocessing(upload: Upload, config: Config) -> None:
    spec = upload.manifest.get("preprocessing")
    if not isinstance(spec, dict) or spec.keys() != {"image_size", "mean", "std"}:
        raise Refused("its 'preprocessing' must hold image_size, mean and std")
    if not _is_count(spec["image_size"]) or spec["image_size"] != config.training.image_size:
        size = _shown(spec["image_size"])
        raise Refused(f"it trained on images of {size} pixels; this run's 'image-size' is {config.training.image_size}")
    for key, smallest in (("mean", -1e3), ("std", 1e-3)):
        values = spec[key]
        if not isinstance(values, list) or len(values) != 3 or not all(_is_within(v, smallest, 1e3) for v in values):
            raise Refused(f"the '{key}' of its preprocessing must be three numbers from {smallest:g} to 1000")


def _training(upload: Upload, config: Config) -> None:
    training = upload.manifest.get("training")
    if not isinstance(training, dict) or not _is_count(training.get("num_examples")):
        raise Refused("its 'training' must hold num_examples, a whole number of at least 0")
    for key in ("validation_accuracy", "test_accuracy"):
        if key not in training:
            raise Refused(f"its 'training' lacks '{key}', which may be null")
    for key in ("validation_accuracy", "test_accuracy", "test_accuracy_wire"):
        if (accuracy := training.get(key)) is not None and not _is_within(accuracy, 0, 1):
            raise Refused(f"it claims a '{key}' of {_shown(accuracy)}; an accuracy is a fraction from 0 to 1")
    if not _is_within(training.get("seconds", 0.0), 0, 1e12):
        raise Refused("the 'seconds' of its training must be a number, at least 0")
    history = training.get("history")
    if not isinstance(history, list) or len(history) > MOST_EPOCHS or not all(map(_is_epoch, history)):
        raise Refused(f"its training 'history' must be at most {MOST_EPOCHS} epochs of names and finite numbers")


def _privacy(upload: Upload, config: Config) -> None:
    for part, largest in (
        ("privacy", {"epsilon": 1e9, "delta": 1.0}),
        ("membership", {"auc": 1.0, "tpr_at_1_percent_fpr": 1.0}),
    ):
        found = upload.manifest.get(part)
        if found is not None and not (
            isinstance(found, dict) and all(_is_within(found.get(key), 0, most) for key, most in largest.items())
        ):
            wanted = " and ".join(f"{key} from 0 to {most:g}" for key, most in largest.items())
            raise Refused(f"its '{part}' must hold {wanted}")


def _is_epoch(entry: object) -> bool:
    values = entry.values() if isinstance(entry, dict) else [entry]
    return all(value is None or _is_within(value, -math.inf, math.inf) for value in values)


def _data(upload: Upload, config: Config) -> None:
    data = upload.manifest.get("data")
    has_virtual_clients = bool(config.simulation.dataset or config.simulation.folders)
    is_virtual = has_virtual_clients and isinstance(data, str) and virtual_index(data, config) is not None
    if data != "folder" and not is_virtual:
        raise Refused(f"its 'data' is {_shown(data)}, not 'folder' or a virtual client of this run")


def _architecture(upload: Upload, config: Config) -> None:
    name = upload.manifest.get("architecture")
    known = architectures.base_architecture(name) if isinstance(name, str) else name
    if isinstance(known, str) and architectures.is_builder(known):
        if known not in config.builders:
            raise Refused(
                f"it names the builder {_shown(name)}, which this server imports only if its 'architectures' name it"
            )
    elif known not in architectures.list_names():
        raise Refused(f"it uploaded a {_shown(name)}, which this server does not know")


def _keys_and_shapes(upload: Upload, config: Config) -> None:
    name, size = upload.manifest["architecture"], config.training.image_size
    try:
        with init_empty_weights():
            expected = architectures.build(name, len(upload.class_names), size, config.builders).state_dict()
    except Exception as error:  # A builder of the operator's may raise anything.
        raise Refused(f"its architecture cannot be built here: {error}") from None
    if different := sorted(set(expected) ^ set(upload.arrays)):
        raise Refused(f"its weights do not fit the architecture, first at {_shown(different[0])}")
    for key, tensor in upload.arrays.items():
        if tensor.shape != expected[key].shape:
            raise Refused(f"'{key}' has shape {list(tensor.shape)}, not {list(expected[key].shape)}")
        fitting = WIRE_DTYPES if expected[key].is_floating_point() else (expected[key].dtype,)
        if tensor.dtype not in fitting:
            raise Refused(f"'{key}' has dtype {tensor.dtype}, not {' or '.join(map(str, fitting))}")


def _signature(upload: Upload, config: Config) -> None:
    if weights_digest(upload.arrays) != upload.manifest.get("sha256"):
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
            raise Refused(f"its statistics are of an unknown layer {_shown(layer)}")
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
    *(_schema, _client, _class_names, _class_counts, _preprocessing, _training, _privacy, _data),
    _architecture,
    *(_keys_and_shapes, _weights, _signature, _classifier),
)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_within(value: object, smallest: float, largest: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e300 and smallest <= value <= largest


def _shown(value: object) -> str:
    """Any value from outside as a short text of plain characters."""
    try:
        text = ascii(value)
    except RecursionError:
        text = "(nested too deeply)"
    return text if len(text) <= 80 else f"{text[:77]}..."
