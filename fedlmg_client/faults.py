"""What a virtual client suffers, to simulate broken and poisoned ones; a client with a folder suffers nothing."""

from dataclasses import replace

import torch

from common.clients.data import ClientData, virtual_index
from common.config.run import Config, LocalTrainingConfig
from common.config.simulation import faults_by_client
from common.datasets.labeled_images import LabeledImages
from common.upload import Upload, weights_digest


def of(data: ClientData, config: Config) -> str:
    """One of `common.config.simulation.FAULTS`; empty for a sound client."""
    return faults_by_client(config.simulation).get(virtual_index(data.source, config), "")


def spoil_data(fault: str, data: ClientData, seed: int) -> ClientData:
    """`random-labels` shuffles the labels of training and validation images; test images stay as they are."""
    if fault != "random-labels":
        return data
    generator = torch.Generator().manual_seed(seed)

    def shuffled(part: LabeledImages) -> LabeledImages:
        return LabeledImages(part.images, part.labels[torch.randperm(len(part), generator=generator)])

    fingerprint = f"{data.fingerprint}/{fault}"
    return replace(data, train=shuffled(data.train), validation=shuffled(data.validation), fingerprint=fingerprint)


def spoil_settings(fault: str, settings: LocalTrainingConfig) -> LocalTrainingConfig:
    """`few-epochs` trains for one."""
    return replace(settings, local_epochs=1) if fault == "few-epochs" else settings


def add_noise(upload: Upload, index: int | None, config: Config) -> Upload:
    """A virtual client's upload with `parameter-noise`; running moments of BatchNorm stay as they are."""
    share = config.simulation.parameter_noise
    if not share or index is None:
        return upload
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + index)
    arrays = {}
    for name, tensor in upload.arrays.items():
        noise = torch.randn(tensor.shape, generator=generator)
        noisy = tensor.is_floating_point() and tensor.numel() > 1 and ".running_" not in name
        arrays[name] = (tensor + share * tensor.float().std() * noise).to(tensor.dtype) if noisy else tensor
    return replace(upload, arrays=arrays, manifest=upload.manifest | {"sha256": weights_digest(arrays)})


def spoil_upload(fault: str, upload: Upload) -> Upload:
    """`nan-weights` replaces every weight by NaN, properly signed."""
    if fault != "nan-weights":
        return upload
    arrays = {
        name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
        for name, tensor in upload.arrays.items()
    }
    return replace(upload, arrays=arrays, manifest=upload.manifest | {"sha256": weights_digest(arrays)})
