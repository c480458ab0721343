"""`fedlmg-client` with the models in a cache: by word, by folder, on a page, made again."""

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from click import Group
from typer.testing import CliRunner

from common.models.predictor import load_classifier
from common.worth import say_worth
from fedlmg_client import folders, page, personalise, returned
from fedlmg_client.cli import app
from tests.client.tiny_client import CONFIG
from tests.client.tiny_evaluation import RETURNED, START, upload_from
from tests.client.tiny_start import CLASSES, make_start


@pytest.mark.parametrize("command", ["join", "audit", "audit-images", "personalise"])
def test_whoever_is_told_that_the_squares_need_more_room_can_give_it(command: str):
    client = typer.main.get_command(app)
    assert isinstance(client, Group)

    options = [name for parameter in client.commands[command].params for name in parameter.opts]

    assert "--image-gigabytes" in options


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a client's `images` and its cache `site-a` after a whole round; tests leave them as they are."""
    root = tmp_path_factory.mktemp("finished")
    node = upload_from(root / "images", root / "caches" / "site-a")
    returned.take(node, CONFIG, make_start("small_resnet", seed=1).models["small_resnet"], RETURNED, START)
    return root


@pytest.fixture
def caches(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("common.clients.node_config.CACHES", finished / "caches")
    return finished / "caches"


def invoke(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ([], "personal"),
        (["--model", "personal"], "personal"),
        (["--model", "returned"], "aggregated"),
        (["--model", "own"], "*/upload"),
    ],
)
def test_a_word_names_a_model(finished: Path, caches: Path, options: list[str], folder: str):
    images = finished / "images" / "test"
    (path,) = (caches / "site-a").glob(folder)

    assert invoke("predict", *options, images) == invoke("predict", "--model", path, images)


def test_without_a_personal_model_the_returned_one_is_used(finished: Path, tmp_path: Path):
    shutil.copytree(finished / "caches" / "site-a", tmp_path / "site-a")
    shutil.rmtree(tmp_path / "site-a" / "personal")

    assert folders.find_newest_model(tmp_path) == tmp_path / "site-a" / "aggregated"


def test_a_cache_gives_its_personal_model(caches: Path):
    found, personal = (load_classifier(caches / "site-a" / name) for name in ("", "personal"))

    assert all((found.network.state_dict()[name] == each).all() for name, each in personal.network.state_dict().items())


def test_an_upload_is_a_classifier(caches: Path):
    (folder,) = (caches / "site-a").glob("*/upload")

    assert load_classifier(folder).class_names == CLASSES


def test_a_word_without_such_a_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("common.clients.node_config.CACHES", tmp_path)

    assert "there is no model 'own' in" in refuse("predict", "--model", "own", "image.png")


@pytest.mark.slow
def test_your_model_is_exported(caches: Path, tmp_path: Path):
    invoke("export", "--model", "personal", "--out", tmp_path / "out")

    assert json.loads((tmp_path / "out" / "labels.json").read_text())["class_names"] == CLASSES


def accuracy_of(cache: Path, folder: str) -> float:
    (path,) = cache.glob(f"{folder}/evaluation.json")
    return json.loads(path.read_text())["accuracy"]


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html.split("</style>")[1]).split())


def test_the_page_says_first_what_the_round_was_worth(caches: Path):
    cache = caches / "site-a"

    shown = text(page.render(cache))

    assert say_worth(accuracy_of(cache, "no-federation"), accuracy_of(cache, "personal")) in shown


@pytest.mark.parametrize(
    ("folder", "title"),
    [
        ("*/upload", "your own model"),
        ("general", "the server's general model"),
        ("no-federation", "that, trained by you alone"),
        ("aggregated", "the returned model"),
        ("personal", "your personal model"),
    ],
)
def test_the_page_shows_every_accuracy(caches: Path, folder: str, title: str):
    shown = text(page.render(caches / "site-a")).replace("&#39;", "'")

    assert f"{100 * accuracy_of(caches / 'site-a', folder):.1f} % {title}" in shown


def test_the_page_says_what_became_personal(caches: Path):
    recipe = json.loads((caches / "site-a" / "personal" / "model.json").read_text())["recipe"]

    assert f"Your personal model: {personalise.say_choice(recipe)}." in text(page.render(caches / "site-a"))


@pytest.mark.parametrize(
    ("word", "title"),
    [
        ("", "Your personal model"),
        ("personal", "Your personal model"),
        ("returned", "The returned model"),
        ("own", "Your own model"),
    ],
)
def test_the_page_shows_one_model_class_by_class(caches: Path, tmp_path: Path, word: str, title: str):
    invoke("report", caches / "site-a", "--out", tmp_path / "page.html", *(["--model", word] if word else []))

    assert f"{title}, class by class" in (tmp_path / "page.html").read_text()


def test_a_folder_is_no_word_for_the_page(caches: Path):
    assert "--model must be `personal`, `returned` or `own` here" in refuse("report", caches, "--model", caches)


def test_a_personal_model_is_made_again_and_is_the_same(finished: Path, tmp_path: Path):
    cache = Path(shutil.copytree(finished / "caches" / "site-a", tmp_path / "site-a"))
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*/model.safetensors")}

    said = invoke("personalise", cache, "--data", finished / "images")

    after = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns > time}
    assert after == {"personal", "no-federation"}
    assert (cache / "personal" / "model.safetensors").read_bytes() == (
        finished / "caches" / "site-a" / "personal" / "model.safetensors"
    ).read_bytes()
    assert f"Your personal model is in {cache / 'personal'}. " in said


def test_decoded_images_lie_in_the_cache_that_was_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("common.datasets.readers.squares.MOST_IN_MEMORY", 0)
    cache = Path(shutil.copytree(finished / "caches" / "site-a", tmp_path / "site-a"))

    invoke("personalise", cache, "--data", finished / "images")

    assert list((cache / "images").glob("*.uint8"))


def test_a_name_stands_for_its_cache(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("common.clients.node_config.CACHES", tmp_path)
    shutil.copytree(finished / "caches" / "site-a", tmp_path / "site-a")

    assert str(tmp_path / "site-a") in invoke("personalise", "--name", "site-a", "--data", finished / "images")


@pytest.mark.parametrize("words", [[], ["cache", "--name", "site-a"]])
def test_one_cache_is_named(finished: Path, words: list[str]):
    assert "and not both" in refuse("personalise", *words, "--data", finished / "images")


def test_a_cache_without_a_returned_model_is_told(finished: Path, tmp_path: Path):
    said = refuse("personalise", tmp_path, "--data", finished / "images")

    assert "it holds no returned model: wait until the model has arrived" in said


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("aggregated/evaluation.json", "{}", "evaluation.json lacks 'client': join again"),
        ("aggregated/settings.json", "[]", "settings.json must be a JSON object, got a list: remove the folder"),
        ("aggregated/settings.json", '{"nokey": 1}', "settings.json cannot be used: unknown config key 'nokey'"),
        ("aggregated/model.json", "{}", "model.json cannot be used: the description of the model is incomplete"),
        ("aggregated/model.json", "{", "model.json must be a JSON object, and cannot be read as one"),
        ("general/model.json", "{", "model.json must be a JSON object, and cannot be read as one"),
    ],
)
def test_a_damaged_file_in_the_cache_is_told(finished: Path, tmp_path: Path, file: str, content: str, sentence: str):
    cache = Path(shutil.copytree(finished / "caches" / "site-a", tmp_path / "site-a"))
    (cache / file).write_text(content)

    said = refuse("personalise", cache, "--data", finished / "images")

    assert f"{cache / Path(file).parent}/{sentence}" in said


def test_images_that_cannot_be_read_are_told(caches: Path, tmp_path: Path):
    assert "no personal model can be made" in refuse("personalise", caches / "site-a", "--data", tmp_path / "nowhere")


def test_a_personal_model_that_cannot_be_made_again_is_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(personalise, "fine_tune", fails)
    cache = Path(shutil.copytree(finished / "caches" / "site-a", tmp_path / "site-a"))

    said = refuse("personalise", cache, "--data", finished / "images")

    assert said.endswith("out of memory")
    assert (cache / "personal" / "model.json").is_file()
