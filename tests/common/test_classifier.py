"""A finished model in use: loaded from its folder, asked about images, exported."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from common.datasets.readers.image_files import ImageError, read_image
from common.models import architectures, commands, predictor
from common.models.export import ExportError, export
from common.models.predictor import ModelError
from common.storage.atomic import write_json
from common.storage.tensors import write_tensors
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client.cli import app
from tests.common.pictures import draw_noise

EXPORTED = {"labels.json", "model.int8.onnx", "model.onnx", "model.pt2"}

USERS_NETS = """
from common.models.small import SmallResNet

def small(num_classes, image_size):
    return SmallResNet(num_classes)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = architectures.build("small_resnet", 2)
    with torch.no_grad():  # An untrained head gives every class the same probability.
        model.head.weight.mul_(20)
    write_tensors(tmp_path / "model" / "model.safetensors", model.state_dict())
    description = {
        "architecture": "small_resnet",
        "class_names": ["cat", "dog"],
        "preprocessing": PreprocessSpec(32).to_json(),
    }
    write_json(tmp_path / "model" / "model.json", description)
    return tmp_path


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    sizes = ((32, 32), (80, 47), (9, 90))
    return [draw_noise(tmp_path / "images" / f"{seed}.png", seed, size) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize("place", [".", "model", "model/model.json"])
def test_a_model_is_found_from_its_workspace_folder_or_file(workspace: Path, place: str):
    assert predictor.load_classifier(workspace / place).class_names == ["cat", "dog"]


def test_predictions_are_those_of_the_module_on_each_image_alone(workspace: Path, images: list[Path]):
    model = predictor.load_classifier(workspace)

    predicted = list(model.predict(images))

    for path, label, confidence in predicted:
        probabilities = model(read_image(path)[None])[0]
        assert label == model.class_names[probabilities.argmax()]
        assert confidence == pytest.approx(probabilities.max().item(), abs=1e-5)
    assert [path for path, *_ in predicted] == images


def test_an_unreadable_image_is_named(workspace: Path, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"")

    with pytest.raises(ImageError, match=r"bad\.png: it is no image"):
        list(predictor.load_classifier(workspace).predict([tmp_path / "bad.png"]))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.json", None, "holds no model.json"),
        ("model.json", "{", r"model\.json must be a JSON object, .*: get the model again, or name another"),
        ("model.json", "[]", r"model\.json must be a JSON object, .*: get the model again, or name another"),
        ("model.json", "{}", r"model\.json lacks 'preprocessing': get the model again, or name another"),
        ("model.safetensors", None, "cannot be loaded"),
        ("model.safetensors", "torn", "cannot be loaded: .*must be a safetensors file"),
    ],
    ids=["no-description", "torn-description", "list", "empty-description", "no-weights", "torn-weights"],
)
def test_a_model_that_is_not_whole_is_refused_in_a_sentence(
    workspace: Path, file: str, content: str | None, reason: str
):
    path = workspace / "model" / file
    path.unlink()
    if content is not None:
        path.write_text(content)

    with pytest.raises(ModelError, match=reason) as refusal:
        predictor.load_classifier(workspace)

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("architecture", ["returned_nets:small", "returned_nets:small+groupnorm"])
def test_a_model_of_the_users_own_needs_its_builder_named(
    workspace: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch, architecture: str
):
    (workspace / "returned_nets.py").write_text(USERS_NETS)
    monkeypatch.syspath_prepend(workspace)
    monkeypatch.delitem(sys.modules, "returned_nets", raising=False)
    model = architectures.build(architecture, 2, 32, {"returned_nets:small"})
    write_tensors(workspace / "model" / "model.safetensors", model.state_dict())
    description = json.loads((workspace / "model" / "model.json").read_text())
    write_json(workspace / "model" / "model.json", description | {"architecture": architecture})
    command = ["predict", "--model", str(workspace), *map(str, images)]

    without, named = (CliRunner().invoke(app, [*command, *more]) for more in ([], ["--builder", "returned_nets:small"]))

    assert without.exit_code == 1
    assert "builder 'returned_nets:small' is not imported" in without.stderr
    assert (named.exit_code, named.stdout.count("\n")) == (0, 1 + len(images))


def test_predict_prints_csv_of_a_folder(workspace: Path, images: list[Path]):
    result = CliRunner().invoke(app, ["predict", "--model", str(workspace), str(images[0].parent)])

    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["path"] for row in rows] == [str(path) for path in images]
    assert {row["class"] for row in rows} <= {"cat", "dog"}
    assert "3 images" in result.stderr


def test_predict_prints_json_of_what_is_readable_and_ends_with_status_1(workspace: Path, images: list[Path]):
    images[1].write_bytes(b"")

    result = CliRunner().invoke(app, ["predict", "--json", "--model", str(workspace), *map(str, images)])

    assert [row["path"] for row in json.loads(result.stdout)] == [str(images[0]), str(images[2])]
    assert (result.exit_code, "1.png: it is no image" in result.stderr) == (1, True)


def test_files_of_systems_beside_the_images_are_told_and_no_problem(workspace: Path, images: list[Path]):
    images[0].with_name(".DS_Store").touch()

    result = CliRunner().invoke(app, ["predict", "--model", str(workspace), str(images[0].parent)])

    assert "skipped: 1 file of systems and tools, or hidden" in result.stderr
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1 + len(images))


def test_a_folder_without_images_is_named(workspace: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()

    result = CliRunner().invoke(app, ["predict", "--model", str(workspace), str(tmp_path / "empty")])

    assert result.exit_code == 1
    assert f"no image below {tmp_path / 'empty'}: name another folder" in result.stderr


@pytest.mark.slow
def test_onnx_and_program_give_what_torch_gives(workspace: Path, images: list[Path]):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = predictor.load_classifier(workspace)
    batches = [read_image(path)[None].repeat(copies, 1, 1, 1) for copies, path in enumerate(images, 1)]

    export(model, workspace / "out", batches)

    session = onnxruntime.InferenceSession(workspace / "out" / "model.onnx")
    program = torch.export.load(workspace / "out" / "model.pt2").module()
    for batch in batches:
        expected = model(batch)
        assert torch.allclose(torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]), expected, atol=1e-4)
        assert torch.allclose(program(batch), expected, atol=1e-4)
    assert {path.name for path in (workspace / "out").iterdir()} == EXPORTED


@pytest.mark.slow
def test_int8_is_smaller_and_its_cost_is_measured(workspace: Path, images: list[Path]):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    batches = [read_image(path)[None] for path in images]

    _, cost = export(predictor.load_classifier(workspace), workspace / "out", batches, labels=[0, 1, 0])

    assert cost.int8_bytes < 0.5 * cost.float_bytes
    assert cost.num_images == 1
    assert {cost.float_accuracy, cost.int8_accuracy} <= {0.0, 1.0}


def test_a_missing_package_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(ExportError, match=r"package 'onnx', .* pip install 'fedlmg\[export\]'"):
        export(predictor.load_classifier(workspace), workspace / "out", [])


def test_a_check_on_noise_for_want_of_images_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    batches, labels = commands._batches([tmp_path], ["cat"])

    said = " ".join(capsys.readouterr().err.split())
    assert "The export is checked on noise, for there are no images." in said
    assert "no image below" in said
    assert labels is None
    assert len(batches) == 3
