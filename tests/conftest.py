"""Parts that many tests share: a tiny untrained pipeline and tiny untrained clients.

Imports PyTorch in functions only: the process that hands tests to the workers needs none, and they wait for it.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.processes import num_processors

if TYPE_CHECKING:
    from common.upload import Upload

MOST_WORKERS = 4
"""Of the fast suite; each holds PyTorch and diffusers in memory."""

BYTECODE = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"

# Before the conftest.py of a room, which imports PyTorch: Python would look for garbage in all that it imports, and
# where it may leave no bytecode beside the modules, each process would compile them anew. Both take ten seconds.
gc.disable()
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(BYTECODE)
    os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are cores; the slow tests start processes of their own and go one at a time."""
    return min(MOST_WORKERS, num_processors()) if "not slow" in config.option.markexpr else 0


def pytest_configure() -> None:
    """A cache for this session alone. Workers share the cores: one thread each, and for what they start."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["FEDLMG_CACHE"] = tempfile.mkdtemp(prefix="fedlmg-cache-")
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import torch

        torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported stays: the collections during the tests pass it over."""
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.enable()


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["FEDLMG_CACHE"], ignore_errors=True)


def make_upload(client: str, class_names: list[str], architecture: str = "small_resnet", seed: int = 0) -> "Upload":
    """A client that saw nothing but noise; transformers, whose untrained heads are zero, get a random one."""
    import torch

    from common.upload import Upload
    from tests.manifests import make_manifest

    see_noise = _see_noise if architecture.startswith("small") else _see_noise.__wrapped__
    arrays, gathered, digest, random = see_noise(architecture, len(class_names), seed)
    torch.set_rng_state(random)  # as if it had been made anew
    manifest = make_manifest(client, class_names, architecture=architecture, sha256=digest)
    return Upload(deepcopy(arrays), deepcopy(gathered), manifest)


@cache
def _see_noise(architecture: str, num_classes: int, seed: int) -> tuple:
    """Weights, statistics, the weights' checksum, and the state of the random numbers after it."""
    import torch

    from common.models import architectures, feature_statistics
    from common.upload import weights_digest
    from common.vision.preprocessing import PreprocessSpec

    torch.manual_seed(seed)
    model = architectures.build(architecture, num_classes)
    for parameter in model.parameters():
        if parameter.dim() == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    for module in model.modules():
        if isinstance(module, feature_statistics.BATCH_NORM):
            module.momentum = None  # the plain mean of the three batches, however slow the architecture's own
    spec = PreprocessSpec()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(spec(torch.rand(16, 3, 32, 32)))
    gathered = feature_statistics.gather(model, [spec(torch.rand(16, 3, 32, 32))])
    arrays = dict(model.state_dict())
    return arrays, gathered, weights_digest(arrays), torch.get_rng_state()


@pytest.fixture(scope="session")
def backend():
    from fedlmg_server.diffusion.families.stable_diffusion import Adapter
    from fedlmg_server.diffusion.latent import LatentBackend
    from fedlmg_server.diffusion.pretraining import tiny_pipeline

    pipeline = tiny_pipeline.build_pipeline(channels=(16, 32))
    return LatentBackend(Adapter(pipeline), pipeline.scheduler)


@pytest.fixture
def upload() -> "Upload":
    return make_upload("site-a", ["cat", "dog"])
