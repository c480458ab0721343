"""Clients that come late and clients that leave: the model is that of the clients there are, to the byte."""

import json
from pathlib import Path

import pytest

from common.config import Config, ConfigError
from fedlmg_server import pipeline
from fedlmg_server.general.models import make_general_models
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace
from tests.common.pictures import draw_classes
from tests.conftest import make_upload
from tests.manifests import saying
from tests.server.tiny_federation import forget_client

CLASSES = {"site-a": ["cat", "dog"], "site-b": ["Dog", "fox"], "site-c": ["cat", "fox"]}
SETTINGS = {
    "warm-start": False,
    "witness": "off",
    "dataset": "",
    "num-clients": 3,
    "min-clients": 1,
    "images-per-class": 1,
    "num-inference-steps": 2,
    "noise-editing-steps": 1,
    "min-confidence": 0.0,
    "student-epochs": 2,
    "teacher-weighting": "uniform",
}


pytestmark = pytest.mark.usefixtures("drawn_in_this_process")


def prepared(folder: Path, diffusion_model: Path, clients: list[str]) -> Run:
    """A run with the uploads of these clients, and what `fedlmg run` makes of them."""
    config = Config.from_run_config(SETTINGS | {"workspace": str(folder), "diffusion-model": str(diffusion_model)})
    run = Run(config, Workspace.open(config, {}))
    for seed, (client, names) in enumerate(CLASSES.items()):
        if client in clients:
            make_upload(client, names, seed=seed).save(run.workspace.upload(client))
    pipeline.aggregate(run)
    return run


@pytest.fixture(scope="module")
def without_b(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> bytes:
    """The model of a federation that site-b never joined."""
    run = prepared(tmp_path_factory.mktemp("without"), pipeline_folder, ["site-a", "site-c"])
    return (run.workspace.model / "model.safetensors").read_bytes()


def test_after_a_client_is_forgotten_the_model_is_as_if_it_had_never_come(
    tmp_path: Path, pipeline_folder: Path, without_b: bytes
):
    workspace = prepared(tmp_path, pipeline_folder, list(CLASSES)).workspace
    with_b = (workspace.model / "model.safetensors").read_bytes()

    forget_client(Run.reopen(workspace.root), "site-b")

    assert (workspace.model / "model.safetensors").read_bytes() == without_b != with_b
    assert [path for path in workspace.root.rglob("site-b*")] == []


def test_after_a_client_comes_late_the_model_is_as_if_it_had_been_there(
    tmp_path: Path, pipeline_folder: Path, without_b: bytes
):
    workspace = prepared(tmp_path, pipeline_folder, ["site-a"]).workspace
    first = {path: path.stat().st_mtime_ns for path in workspace.synthetic("site-a").rglob("*.png")}

    workspace = prepared(tmp_path, pipeline_folder, ["site-a", "site-c"]).workspace

    assert (workspace.model / "model.safetensors").read_bytes() == without_b
    assert {path: path.stat().st_mtime_ns for path in first} == first


def test_a_forgotten_clients_model_goes_even_where_no_other_can_be_made(tmp_path: Path, pipeline_folder: Path):
    workspace = prepared(tmp_path, pipeline_folder, ["site-a"]).workspace

    with pytest.raises(ConfigError, match="no upload remains to make a model from"):
        forget_client(Run.reopen(workspace.root), "site-a")

    assert not workspace.model.exists()


def test_a_client_that_calls_itself_a_path_takes_no_folder_with_it(tmp_path: Path):
    precious = tmp_path / "victim" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    config = Config.from_run_config(SETTINGS | {"workspace": str(tmp_path / "workspace")})
    workspace = Workspace.open(config, {})
    make_upload(str(precious.parent), ["cat", "dog"]).save(workspace.upload(str(precious.parent)))

    with pytest.raises(ConfigError, match="no upload remains to make a model from"):
        forget_client(Run(config, workspace), str(precious.parent))

    assert precious.read_text() == "mine"
    assert not list(workspace.uploads.iterdir())


def test_a_client_is_found_by_the_name_that_is_listed_and_by_its_folder(tmp_path: Path):
    config = Config.from_run_config(SETTINGS | {"workspace": str(tmp_path)})
    workspace = Workspace.open(config, {})
    make_upload("Klinik S\u00fcd", ["cat", "dog"]).save(workspace.upload("Klinik S\u00fcd"))
    (folder,) = workspace.uploads.iterdir()

    with pytest.raises(ConfigError, match="choose one of Klinik S\u00fcd"):
        forget_client(Run(config, workspace), "Klinik Nord")
    with pytest.raises(ConfigError, match="the client is removed, but no upload remains"):
        forget_client(Run(config, workspace), folder.name)


def test_an_unknown_client_is_not_forgotten_and_the_known_are_named(tmp_path: Path):
    config = Config.from_run_config(SETTINGS | {"workspace": str(tmp_path)})
    workspace = Workspace.open(config, {})
    make_upload("site-a", ["cat", "dog"]).save(workspace.upload("site-a"))

    with pytest.raises(ConfigError, match=r"no client is called 'site-x'.*site-a"):
        forget_client(Run(config, workspace), "site-x")


def test_a_workspace_may_wait_for_more_clients_than_before(tmp_path: Path):
    Workspace.open(Config.from_run_config({"workspace": str(tmp_path), "num-clients": 3}), {})

    Workspace.open(Config.from_run_config({"workspace": str(tmp_path), "num-clients": 4}), {})

    assert json.loads((tmp_path / "run.json").read_text())["config"]["num-clients"] == 4


def test_after_a_warm_start_a_forgotten_client_s_images_and_upload_go_but_its_class_stays(
    tmp_path: Path, pipeline_folder: Path
):
    draw_classes(tmp_path / "public", ("cat", "dog"), count=6)
    warm = {"warm-start": True, "public-images": str(tmp_path / "public"), "general-updates": 1}
    settings = SETTINGS | warm | {"workspace": str(tmp_path / "run"), "diffusion-model": str(pipeline_folder)}
    config = Config.from_run_config(settings)
    run = Run(config, Workspace.open(config, {}))
    run.workspace.fix_class_names(["cat", "dog", "fox"])
    make_general_models(run, ["small_resnet"])
    for client, counts in {"site-a": [9, 9, 0], "site-b": [0, 9, 9], "site-c": [9, 0, 0]}.items():
        saying(make_upload(client, ["cat", "dog", "fox"]), class_counts=counts).save(run.workspace.upload(client))
    pipeline.aggregate(run)

    forget_client(Run.reopen(run.workspace.root), "site-b")

    left = {path.parent.name for path in run.workspace.root.glob("synthetic/*/*")}
    assert left == {"site-a", "site-c"}
    assert Run.reopen(run.workspace.root).model_description["class_names"] == ["cat", "dog", "fox"]
