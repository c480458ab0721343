"""A client's own page: its figures and nobody else's."""

import re
import shutil
from html import escape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.storage.atomic import write_json
from fedlmg_client import page
from fedlmg_client.cli import app
from fedlmg_client.measured import Measured
from tests.client.tiny_cache import HOSTILE, MEASURED, make_cache


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html.split("</style>")[1]).split())


def test_headline_compares_the_returned_model_with_the_clients_own(tmp_path: Path):
    html = page.render(make_cache(tmp_path))

    assert "accuracy of 75.0 % on your test images, 15.0 points more than your own model" in text(html)


def test_classes_are_joined_as_they_were_measured_however_spelt(tmp_path: Path):
    shown = text(page.render(make_cache(tmp_path)))

    assert "Cat 10 90.0" in shown
    assert "→ emu (40.0 %)" in shown


def test_names_are_escaped(tmp_path: Path):
    html = page.render(make_cache(tmp_path))

    assert HOSTILE not in html
    assert escape(HOSTILE) in html


def test_without_test_images_nothing_is_claimed(tmp_path: Path):
    cache = make_cache(tmp_path)
    Measured(
        client="a", accuracy=0, balanced_accuracy=0, class_names=["cat"], correct=[0], confusion=[[0, 0, 0]]
    ).write(cache / "aggregated")

    assert "This client has no test images" in page.render(cache)


def test_command_writes_the_page_into_the_cache(tmp_path: Path):
    result = CliRunner().invoke(app, ["report", str(make_cache(tmp_path))])

    assert result.exit_code == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("evaluation.json", {}, "evaluation.json lacks 'client'"),
        ("evaluation.json", [], "evaluation.json must be an object"),
        ("evaluation.json", MEASURED | {"correct": [0]}, "has class_names, correct and confusion of different lengths"),
        ("evaluation.json", MEASURED | {"correct": [0, 3]}, "has a correct class that the model lacks"),
        ("evaluation.json", MEASURED | {"confusion": [[1, 2], [3, 4]]}, "does not fit the classes of its model"),
        ("model.json", [], "model.json must be a JSON object, got a list"),
        ("model.json", {}, "does not fit the classes of its model"),
    ],
)
def test_a_file_that_is_damaged_is_told_in_a_sentence(tmp_path: Path, file: str, content: object, sentence: str):
    cache = make_cache(tmp_path)
    write_json(cache / "aggregated" / file, content)

    result = CliRunner().invoke(app, ["report", str(cache)])

    assert result.exit_code == 1
    assert sentence in result.output
    assert "join again" in result.output


def test_a_personal_model_that_does_not_say_how_it_was_made_is_told_in_a_sentence(tmp_path: Path):
    cache = make_cache(tmp_path)
    shutil.copytree(cache / "aggregated", cache / "personal")

    result = CliRunner().invoke(app, ["report", str(cache)])

    assert result.exit_code == 1
    assert f"{cache / 'personal' / 'model.json'} does not say how it was made" in result.output


def test_a_folder_that_is_no_cache_is_refused_in_a_sentence(tmp_path: Path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])

    assert result.exit_code == 1
    assert "this client has not measured a returned model yet" in " ".join(result.output.split())
