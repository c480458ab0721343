import base64
import io
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from common.html_page import format_percent
from fedlmg_server import method_names, results
from fedlmg_server.report import model_card, montage, page
from tests.manifests import make_manifest
from tests.report.tiny import HOSTILE, figures, make_workspace, warm_figures, write_json


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    make_workspace(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    workspace = tmp_path_factory.mktemp("workspace")
    return page.render(workspace, make_workspace(workspace))


def rows(html: str) -> list[list[str]]:
    """Texts of every table row's cells."""
    found = re.findall(r"<tr.*?</tr>", html, re.S)
    cells = (re.findall(r"<t[dh] .*?</t[dh]>|<td>.*?</td>", row, re.S) for row in found)
    return [[unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_page_asks_the_network_for_nothing(html: str):
    assert not re.search(r"https?://|<script|@import|url\(", html)
    assert re.findall("<link.*?>", html) == ['<link rel="icon" href="data:,">']


def test_figures_are_those_of_the_results(html: str):
    for name, method in figures()["methods"].items():
        per_client = [format_percent(method["per_client"].get(client)) for client in ("mnist", HOSTILE)]
        means = [format_percent(method.get(mean)) for mean in ("accuracy", "balanced_accuracy")]
        assert [method_names.title_method(name), *means, *per_client] in rows(html)


def test_headline_compares_in_points(html: str):
    assert "75.0 % of their images, 35.0 points more than" in html
    assert "4.5 points more than each client" in html


def test_texts_from_clients_are_escaped(html: str):
    assert HOSTILE not in html
    assert [HOSTILE, "50.0", "62.7", "+12.7", "\N{EN DASH}", "small_resnet", "40", "1.5"] in rows(html)


def test_reasons_of_missing_clients_are_shown(html: str):
    assert ["late", "no answer by the <deadline>"] in rows(html)
    assert ["broken", "weights hold a NaN"] in rows(html)


def test_a_client_whose_next_upload_was_valid_is_not_among_the_missing(html: str):
    assert "its first upload was cut short" not in html


def test_every_picture_has_a_text(html: str):
    pictures = re.findall(r"<img.*?>", html, re.S)
    assert len(pictures) == 14  # bars, two classes of two clients guided and unguided, five plots
    assert [picture for picture in pictures if not re.search(r'alt="[^"]+"', picture)] == []


def test_every_plot_is_an_image(html: str):
    plots = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    assert len(plots) == 6  # bars and five plots
    assert {base64.b64decode(plot)[:5] for plot in plots} == {b"<?xml"}


def test_nothing_but_results_is_needed(tmp_path: Path):
    bare = figures() | {"clients": {}, "methods": {}, "stages": {}, "missing": {}}
    bare["aggregated"]["accuracy"] = None

    html = page.render(tmp_path, results.make_results(**bare))

    assert "not been measured" in html
    assert "<img" not in html


def test_odd_manifests_are_passed_over(workspace: Path, html: str):
    history = [None, {"epoch": "1", "train_loss": float("nan")}]
    odd = ([], {"training": 5}, make_manifest().to_json() | {"training": {"history": history}})
    for number, manifest in enumerate(odd):
        write_json(workspace / "uploads" / f"odd-{number}" / "manifest.json", manifest)

    assert page.render(workspace, results.make_results(**figures())) == html


def test_same_run_same_page(workspace: Path, html: str):
    assert page.render(workspace, results.make_results(**figures())) == html


def test_montage_has_a_column_a_class(workspace: Path):
    grid = montage.grid(workspace / "synthetic")

    strip = grid.clients["mnist"]["cat"]
    assert grid.classes == ["cat", "dog"]
    assert strip.files == ["cat/0.png", "cat/1.png"]
    assert Image.open(io.BytesIO(strip.png)).size == (montage.SMALLEST_TILE, 2 * montage.SMALLEST_TILE)


def test_unsafe_images_are_not_shown(workspace: Path):
    unsafe = workspace / "synthetic/mnist/cat/0.png"
    Image.new("RGB", (8, 8), "red").save(unsafe)
    score = {"file": "cat/0.png", "class_name": "cat", "confidence": 0.875, "agrees": True, "safe": False}
    write_json(workspace / "synthetic" / "mnist" / "scores-0.jsonl", score)

    html = page.render(workspace, results.make_results(**figures()))

    with_it, without = (montage.grid(workspace / "synthetic", left_out) for left_out in (set(), {unsafe}))
    assert without.clients["mnist"]["cat"].files == ["cat/1.png"]
    assert encoded(without.clients["mnist"]["cat"].png) in html
    assert encoded(with_it.clients["mnist"]["cat"].png) not in html


def encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def test_many_large_noisy_images_stay_within_the_budget(tmp_path: Path):
    for client in range(3):
        for label in range(25):
            path = tmp_path / f"client{client}" / str(label) / "0.png"
            path.parent.mkdir(parents=True)
            Image.effect_noise((70, 70), 90).convert("RGB").save(path)

    grid = montage.grid(tmp_path)

    assert (len(grid.classes), grid.num_classes) == (montage.MAX_CLASSES, 25)
    assert sum(len(strip.png) for strips in grid.clients.values() for strip in strips.values()) <= montage.MAX_BYTES


def test_matrix_ends_with_the_aggregated_model(html: str):
    assert ["mnist", "91.0", "12.0", "51.5"] in rows(html)
    assert ["aggregated model", "87.3", "62.7", "75.0"] in rows(html)


def test_confusion_counts_and_names_the_worst_mistake(html: str):
    assert ["cat", "30", "10"] in rows(html)
    assert "cat for dog (25.0 %), dog for cat (25.0 %)." in " ".join(html.split())


def test_classes_have_their_accuracy_and_test_images_by_client(html: str):
    assert ["cat", "40", "75.0", "90.0 (20)", "60.0 (20)"] in rows(html)
    assert ["dog", "20", "75.0", "\N{EN DASH}", "75.0 (20)"] in rows(html)


def test_kept_and_rejected_images_are_counted(html: str):
    assert [HOSTILE, "4", "3", "2", "2", "confidence 2"] in rows(html)


def test_scores_stand_beside_their_picture(html: str):
    assert "<li>read as asked, 87.5 % for this class; accepted</li><li>not scored</li>" in html


def test_losses_over_steps_begin_with_noise_editing(html: str):
    assert "mnist from 9 to 7.5" in html


def test_model_card_has_the_measured_table_and_escapes_names():
    card = model_card.render(results.make_results(**figures()), ["cat", HOSTILE])

    assert "| client 1 | 40 | 91.0 | 87.3 | \N{MINUS SIGN}3.7 |" in card
    assert r"\<b\>$x\_$\</b\>" in card


@pytest.mark.parametrize("run", [figures(), warm_figures()], ids=["cold", "warm"])
def test_model_card_goes_with_the_model_and_names_no_client(run: dict):
    card = model_card.render(results.make_results(**run), ["cat", "dog"])

    assert "client 2" in card
    assert not [name for name in ("mnist", "late", "x\\_$") if name in card]


def test_model_card_says_where_the_knowledge_comes_from():
    cold, warm = (model_card.render(results.make_results(**each), ["cat"]) for each in (figures(), warm_figures()))

    assert "comes from 20000 labelled public images, from what 2 clients uploaded, and from 8 synthetic images" in warm
    assert "Trained on 8 synthetic images" in cold


def test_model_card_of_a_warm_start_has_every_model_and_what_the_round_was_worth():
    card = model_card.render(results.make_results(**warm_figures()), ["cat", "dog"])

    assert "| client 1 | 40 | 91.0 | 87.3 | \N{MINUS SIGN}3.7 | 70.0 | 81.2 | 83.4 | +2.2 |" in card
    assert (
        "- client 1: Without the round you would have 81.2 %, with it 83.4; on everybody's images 71.0 and 79.0."
        in card
    )
    assert "\n- <b>" not in card


def test_page_of_a_warm_start_has_every_model_of_a_client(tmp_path: Path):
    html = page.render(tmp_path, results.make_results(**warm_figures(mnist=0.8)))

    cells = ["81.2", "62.7", "83.4", "+2.2", "79.0", "small_resnet", "40", "1.5"]
    assert [HOSTILE, "50.0", "70.0", *cells] in rows(html)
    assert HOSTILE not in html


def test_page_and_card_say_how_sure_the_accuracies_are(tmp_path: Path):
    figures = warm_figures()
    figures["clients"]["mnist"] |= {"num_test_images": 39, "balanced_accuracy": {"aggregated": 0.7345}}
    sure = results.make_results(**figures)

    html, card = page.render(tmp_path, sure), model_card.render(sure, ["cat", "dog"])

    assert "<td>39</td>" in html
    assert "73\N{EN DASH}94, 73.4" in html.replace("73.5", "73.4")
    assert "73\N{EN DASH}94 | 73.4" in card.replace("73.5", "73.4")


def test_page_says_what_the_round_was_worth(tmp_path: Path):
    html = page.render(tmp_path, results.make_results(**warm_figures(mnist=0.8)))

    assert (
        "<li><b>mnist</b>: On your own images the round cost you 1.2 points: without it you would have 81.2 %" in html
    )
    assert "Without the round the mean client would have 81.2 %, with it 81.7" in html


def test_students_of_few_and_many_epochs_share_a_plot(tmp_path: Path):
    short, long = ([{"epoch": epoch * size, "loss": 1 / epoch} for epoch in (1, 2)] for size in (0.1, 30))
    write_json(tmp_path / "report" / "histories.json", {"short": short, "long": long})

    html = page.render(tmp_path, results.make_results(**warm_figures()))

    assert "Distillation: loss by share of the training, %: short from 1 to 0.5, long from 1 to 0.5" in html


def test_page_without_a_warm_start_says_nothing_of_it(html: str):
    assert not any(text in html for text in ("What the round was worth", "general model", "personal"))


def test_page_of_personal_models_from_scratch_tells_of_no_general_model(tmp_path: Path):
    html = page.render(tmp_path, results.make_results(**warm_figures() | {"general": None}))

    assert "The server had made the general model" not in html
    assert "Clients fine-tuned what came back." in html


def test_sentences_of_many_clients_are_folded(tmp_path: Path):
    many = warm_figures()
    many["clients"] = {f"site-{number}": many["clients"]["mnist"] for number in range(13)}

    html = page.render(tmp_path, results.make_results(**many))

    folded = html[html.index("<summary>A sentence for each of 13 clients</summary>") :]
    assert folded[: folded.index("</details>")].count("Without the round you would have") == 13
