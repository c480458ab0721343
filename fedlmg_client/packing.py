"""What a trained classifier's upload holds: weights as they are sent, feature statistics, accuracies, an audit."""

from collections.abc import Iterator

import torch

from common.clients.data import ClientData
from common.config.run import LocalTrainingConfig
from common.datasets.labeled_images import LabeledView
from common.manifest import SCHEMA, Epoch, Manifest, Preprocessing, Training
from common.models import feature_statistics
from common.models.feature_statistics import FeatureStatistics, to_tensors
from common.telling import ToldError
from common.upload import Upload, to_wire, weights_digest
from common.vision.metrics import accuracy, predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import audit, clustered_statistics
from fedlmg_client.private_training import Budget


def pack(
    model: torch.nn.Module,
    data: ClientData,
    architecture: str,
    preprocess: PreprocessSpec,
    config: LocalTrainingConfig,
    progress: dict,
    budget: Budget | None,
) -> Upload:
    """The upload of a trained classifier, whose weights become those that are sent.

    progress: what the training returned: `best` validation accuracy, `seconds` and `history`.
    """
    moments = {} if budget else _gather_statistics(model, data, preprocess, config)
    _check_finite(to_tensors(moments), "feature statistics")
    test_accuracy = measure_accuracy(model, preprocess, data.test)
    arrays = to_arrays(model, data.name)
    model.load_state_dict(arrays)
    found = audit.measure_membership(model, preprocess, data.train, data.validation.join(data.test))
    counts = torch.bincount(data.train.labels, minlength=len(data.class_names)).tolist()
    training = Training(
        num_examples=len(data.train),
        validation_accuracy=progress["best"] if progress["best"] >= 0 else None,
        test_accuracy=test_accuracy,
        test_accuracy_wire=measure_accuracy(model, preprocess, data.test),
        seconds=round(progress["seconds"], 3),
        history=[Epoch(**entry) for entry in progress["history"]],
    )
    manifest = Manifest(
        schema_version=SCHEMA,
        client=data.name,
        architecture=architecture,
        class_names=list(data.class_names),
        class_counts=counts,
        preprocessing=Preprocessing(**preprocess.to_json()),
        training=training,
        privacy=budget.to_manifest() if budget else None,
        membership=found,
        data=data.source,
        sha256=weights_digest(arrays),
    )
    return Upload(arrays, moments, manifest)


def to_arrays(model: torch.nn.Module, client: str) -> dict[str, torch.Tensor]:
    """The model's state dict as it is sent; it prints which tensors float16 cannot hold.

    Raises
    ------
    ValueError: a weight is not finite.
    """
    state = model.state_dict()
    _check_finite(state, "weights")
    arrays = {name: to_wire(tensor) for name, tensor in state.items()}
    if wide := [name for name, tensor in arrays.items() if tensor.dim() and tensor.dtype == torch.float32]:
        largest = max(arrays[name].abs().max().item() for name in wide)
        print(
            f"{client}: {len(wide)} of {len(arrays)} tensors, '{wide[0]}' first, have values of up to {largest:.6g}, "
            f"more than float16 holds: they are sent as float32",
            flush=True,
        )
    return arrays


def _check_finite(tensors: dict[str, torch.Tensor], kind: str) -> None:
    broken = [name for name, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if broken:
        raise ToldError(
            f"training must end with finite {kind}, but {len(broken)} of {len(tensors)} tensors, '{broken[0]}' first, "
            "hold infinity or NaN, so nothing was sent: lower 'local-learning-rate', or check the images",
            f"its training ended with {kind} that are not finite, so it sent nothing",
        )


def _gather_statistics(
    model: torch.nn.Module, data: ClientData, preprocess: PreprocessSpec, config: LocalTrainingConfig
) -> FeatureStatistics:
    device, size, num_classes = next(model.parameters()).device, config.local_batch_size, len(data.class_names)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in zip(data.train.images.split(size), data.train.labels.split(size), strict=True):
            yield preprocess(images.to(device).float() / 255), labels

    if config.statistics == "global":
        return feature_statistics.gather(model, (images for images, _ in batches()))
    if config.num_clusters == 1:
        return feature_statistics.gather_by_class(model, batches(), num_classes)
    return clustered_statistics.gather(model, batches, num_classes, config.num_clusters)


def measure_accuracy(model: torch.nn.Module, preprocess: PreprocessSpec, data: LabeledView) -> float | None:
    """Accuracy in [0, 1]; None without images."""
    return accuracy(predict(model, preprocess, data.images), data.labels) if len(data) else None
