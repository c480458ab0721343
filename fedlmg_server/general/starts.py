"""Starts for clients: general models as they travel, and general images to replay."""

from pathlib import Path

from common.datasets.labeled_images import LabeledImages
from common.start import Start
from common.storage.tensors import read_tensors, write_tensors
from fedlmg_server.general.images import balanced_rows, general_class_names, load_general_images
from fedlmg_server.general.models import REPLAY, make_general_models
from fedlmg_server.run import Run


def make_start(run: Run, architectures: list[str]) -> Start:
    """General models of those architectures whose general model is good enough, in float16, and the replay images.

    Raises
    ------
    FolderError, ConfigError, RuntimeError: there are no general images (see `load_general_images`).
    """
    made = make_general_models(run, architectures)
    models = {name: made[name].weights for name in architectures if name in made and made[name].is_offered}
    return Start(general_class_names(run), run.preprocess, run.config.general.looks, models, load_replay(run))


def load_replay(run: Run) -> LabeledImages:
    """General images that every client receives: class-balanced, of at most `replay-megabytes`, kept in the workspace.

    uint8 (N, 3, image_size, image_size), labels in `general_class_names`; N may be 0.

    Raises
    ------
    FolderError, ConfigError, RuntimeError: there are no general images (see `load_general_images`).
    """
    path: Path = run.workspace.general / REPLAY
    names = "\n".join(general_class_names(run))
    if path.exists():
        tensors, metadata = read_tensors(path)
        if metadata["class_names"] == names:
            return LabeledImages(tensors["images"], tensors["labels"])
    size = 3 * run.config.training.image_size**2
    most = int(run.config.general.replay_megabytes * 1e6) // size
    train = load_general_images(run).train
    rows = balanced_rows(train.labels, most, run.config.seed)
    replay = train.choose(rows).read()
    write_tensors(path, {"images": replay.images, "labels": replay.labels}, {"class_names": names})
    return replay
