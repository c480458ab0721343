"""Checks that an upload must pass, the cheapest first, from its class names to a guided backward pass on noise.

The manifest is checked earlier, when it is read (`common/manifest.py`). Nothing in an upload is trusted before its
check. No text of an upload becomes a path, an import or the size of a tensor.
"""

from collections.abc import Callable, Collection

import torch
from accelerate import init_empty_weights

from common import labels
from common.clients.data import virtual_index
from common.config.run import Config, LocalTrainingConfig
from common.contracts import show_value
from common.models import architectures, feature_statistics
from common.models.feature_statistics import FeatureStatistics
from common.upload import Upload, weights_digest
from fedlmg_server.collection.classes import explain_excess
from fedlmg_server.collection.guided_check import GuidanceError, check_guidance
from fedlmg_server.quarantine import is_servers_own

LARGEST_WEIGHTS = 1e4
"""Largest root mean square of a tensor of weights or of a layer's means (ours: trained nets reach a few hundred)."""
LARGEST_VARIANCES = LARGEST_WEIGHTS**2
WIRE_DTYPES = (torch.float16, torch.float32)


class UploadError(ValueError):
    """An upload is not valid; the message is one sentence that says which client's upload it is, and why."""


def check_upload(upload: Upload, config: Config) -> None:
    """Check that the upload matches its manifest and this run's config.

    Raises
    ------
    UploadError: a check fails; the message names the client.
    """
    try:
        for step in STEPS:
            step(upload, config)
    except UploadError as error:
        raise UploadError(f"client '{upload.client}': {error}") from None
    except Exception as error:  # Whatever a stranger's net raises is charged to the stranger.
        if is_servers_own(error):
            raise
        problem = f"a check of it fails with {type(error).__name__}: {error}"
        raise UploadError(f"client '{upload.client}': {problem}") from None


def _check_class_names(upload: Upload, config: Config) -> None:
    try:
        labels.check_distinct(upload.class_names, labels.parse_aliases(config.clients.class_aliases))
    except ValueError as error:
        raise UploadError(str(error)) from None


def _check_num_classes(upload: Upload, config: Config) -> None:
    if why := explain_excess(len(upload.class_names), len(upload.held_class_names), config):
        raise UploadError(why)


def _check_image_size(upload: Upload, config: Config) -> None:
    if (size := upload.preprocess.image_size) != config.training.image_size:
        raise UploadError(
            f"its classifier must take images of {config.training.image_size} pixels ('image-size'), got {size} pixels"
        )


def _check_data_source(upload: Upload, config: Config) -> None:
    data = upload.manifest.data
    has_virtual_clients = bool(config.simulation.dataset or config.simulation.folders)
    is_virtual = has_virtual_clients and virtual_index(data, config) is not None
    if data != "folder" and not is_virtual:
        raise UploadError(f"its 'data' must be 'folder' or name a virtual client of this run, got {show_value(data)}")


def check_architecture(name: str, config: Config) -> None:
    """Check that this server may build an architecture.

    Raises
    ------
    UploadError: it may not.
    """
    known = architectures.base_architecture(name)
    if architectures.is_builder(known):
        if known not in config.builders:
            raise UploadError(
                f"its architecture is the builder {show_value(name)}; this server imports only builders in "
                "'architectures'"
            )
    elif known not in architectures.list_names():
        raise UploadError(f"its architecture {show_value(name)} is unknown to this server: use one that it has")


def _check_architecture(upload: Upload, config: Config) -> None:
    check_architecture(upload.manifest.architecture, config)


def _check_class_counts(upload: Upload, config: Config) -> None:
    if not any(upload.manifest.class_counts):
        raise UploadError("its manifest counts no training image of any class")


def _check_shapes(upload: Upload, config: Config) -> None:
    _check_shapes_of(upload.manifest.architecture, upload.arrays, len(upload.class_names), config)


def _check_shapes_of(name: str, arrays: dict[str, torch.Tensor], num_classes: int, config: Config) -> None:
    size = config.training.image_size
    try:
        with init_empty_weights():
            expected = architectures.build(name, num_classes, size, config.builders).state_dict()
    except Exception as error:  # A builder of the operator's may raise anything.
        raise UploadError(f"its architecture cannot be built on this server: {error}") from None
    if different := sorted(set(expected) ^ set(arrays)):
        raise UploadError(f"its weights do not match its architecture, first at {show_value(different[0])}")
    for key, tensor in arrays.items():
        if tensor.shape != expected[key].shape:
            raise UploadError(f"'{key}' must have shape {list(expected[key].shape)}, got {list(tensor.shape)}")
        fitting = WIRE_DTYPES if expected[key].is_floating_point() else (expected[key].dtype,)
        if tensor.dtype not in fitting:
            raise UploadError(f"'{key}' must have dtype {' or '.join(map(str, fitting))}, got {tensor.dtype}")


def _check_checksum(upload: Upload, config: Config) -> None:
    _check_checksum_of(upload.arrays, upload.manifest.sha256)


def _check_checksum_of(arrays: dict[str, torch.Tensor], sha256: str) -> None:
    if weights_digest(arrays) != sha256:
        raise UploadError("checksum mismatch between weights and manifest: ask the client to upload again")


def _check_weights(upload: Upload, config: Config) -> None:
    _check_weights_of(upload.arrays)


def _check_weights_of(arrays: dict[str, torch.Tensor]) -> None:
    for key, tensor in arrays.items():
        is_variance = key.endswith("running_var")
        _check_values(f"'{key}'", tensor, LARGEST_VARIANCES if is_variance else LARGEST_WEIGHTS)
        if is_variance and (tensor < 0).any():
            raise UploadError(f"a variance of '{key}' is negative")


def _check_student_copy(upload: Upload, config: Config) -> None:
    """The second classifier passes what the first one does, and has the student's architecture."""
    said, arrays = upload.manifest.student_copy, upload.student_copy
    if said is None:
        if arrays:
            raise UploadError("it holds a copy of the student that its manifest does not name")
        return
    if said.architecture != (student := config.distillation.student_architecture):
        raise UploadError(f"its copy of the student must be a '{student}', got {show_value(said.architecture)}")
    try:
        _check_shapes_of(student, arrays, len(said.class_names), config)
        _check_weights_of(arrays)
        _check_checksum_of(arrays, said.sha256)
        model = architectures.build(student, len(said.class_names), upload.preprocess.image_size, config.builders)
        model.load_state_dict(arrays)
        _run_on_noise(upload, model.float().eval(), (), len(said.class_names))
    except UploadError as error:
        raise UploadError(f"its copy of the student: {error}") from None


def _check_classifier(upload: Upload, config: Config) -> None:
    classifier = upload.classifier()
    layers = feature_statistics.tapped_layers(classifier)
    _check_statistics(upload, layers)
    _check_forward(upload, classifier, layers, config.training)


def _check_guidance(upload: Upload, config: Config) -> None:
    try:
        check_guidance(upload, config)
    except GuidanceError as error:
        raise UploadError(str(error)) from None


def _check_statistics(upload: Upload, known: Collection[str]) -> None:
    for layer, moments in upload.statistics.items():
        if layer not in known:
            raise UploadError(
                f"its feature statistics name the layer {show_value(layer)}, but its classifier has no such layer"
            )
        for kind, tensor, largest in (
            ("means", moments.mean, LARGEST_WEIGHTS),
            ("variances", moments.variance, LARGEST_VARIANCES),
        ):
            if tensor.dtype != torch.float32 or tensor.dim() not in (1, 2, 3):
                raise UploadError(
                    f"the {kind} of '{layer}' must be float32 with 1 to 3 dimensions, got {tensor.dtype} with "
                    f"{tensor.dim()}"
                )
            _check_values(f"its feature statistics, the {kind} of '{layer}'", tensor, largest)
        if (moments.variance < 0).any():
            raise UploadError(f"a variance of '{layer}' is negative")


def _check_values(what: str, tensor: torch.Tensor, largest: float) -> None:
    values = tensor.double()
    if not torch.isfinite(values).all():
        raise UploadError(f"{what}: all values must be finite, but some are not")
    if tensor.is_floating_point() and tensor.numel() and values.square().mean().sqrt() > largest:
        raise UploadError(f"{what}: the root mean square must be at most {largest:g}, but is larger")


@torch.no_grad()
def _run_on_noise(
    upload: Upload, classifier: torch.nn.Module, layers: Collection[str], num_classes: int
) -> FeatureStatistics:
    """Moments of the layers' inputs; the classifier's output must be one that can be used."""
    size = upload.preprocess.image_size
    noise = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with feature_statistics.recording(classifier, layers) as recorded:
            logits = classifier(upload.preprocess(noise))
    except Exception as error:  # The operator's own builder may raise anything.
        raise UploadError(f"its classifier fails on noise: {error}") from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (8, num_classes):
        raise UploadError("its classifier must return one number for each class, but does not")
    if not torch.isfinite(logits).all():
        raise UploadError("its classifier's output on noise must be finite, but is not")
    if logits.std(0).max() <= 1e-7 * logits.abs().max():
        raise UploadError("its classifier returns the same output for every image")
    return recorded


def _check_forward(
    upload: Upload, classifier: torch.nn.Module, layers: Collection[str], asked: LocalTrainingConfig
) -> None:
    recorded = _run_on_noise(upload, classifier, layers, len(upload.class_names))
    if not upload.statistics:
        return  # Statistics are optional: without them, guidance uses only the classifier's output.
    for layer, seen in recorded.items():
        if layer not in upload.statistics:
            raise UploadError(f"its feature statistics lack the layer '{layer}'")
        sent = upload.statistics[layer]
        of_all = [seen.mean.shape[1]]
        wanted = [of_all]
        if asked.statistics != "global":
            wanted.append([len(upload.class_names), *of_all])
            wanted += [[asked.num_clusters, *wanted[-1]]] if asked.num_clusters > 1 else []
        if list(sent.mean.shape) not in wanted or sent.mean.shape != sent.variance.shape:
            shapes = " or ".join(map(str, wanted))
            raise UploadError(
                f"its feature statistics of '{layer}' must have the shape {shapes}, got {list(sent.mean.shape)} and "
                f"{list(sent.variance.shape)}"
            )


STEPS: tuple[Callable[[Upload, Config], None], ...] = (
    *(_check_num_classes, _check_class_names, _check_class_counts, _check_image_size, _check_data_source),
    *(_check_architecture, _check_shapes, _check_weights, _check_checksum, _check_classifier, _check_guidance),
    _check_student_copy,
)
