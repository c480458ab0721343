"""The report for federations of every size and for names in every script: small enough, and saying what it cuts."""

from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from common import manifest
from common.html_page import format_percent
from common.manifest import Epoch
from common.names import safe_name
from fedlmg_server import results
from fedlmg_server.report import model_card, page
from tests.manifests import make_manifest, make_training

SCRIPTS = ["قطة", "猫", "🐈", "кошка", "γάτα", "แมว"]
MAX_BYTES = 5_000_000


def run_of(root: Path, clients: list[str], class_names: list[str]) -> results.Results:
    """A made-up finished run, with one small image of each class for the first twenty clients."""
    for client in clients[:20]:
        for name in class_names:
            path = root / "synthetic" / safe_name(client) / safe_name(name) / "7.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "teal").save(path)
    for client in clients:
        training = make_training(history=[Epoch(epoch=1, train_loss=1.0)])
        manifest.write(root / "uploads" / safe_name(client), make_manifest(client, class_names, training=training))
    figures = {"architecture": "small_resnet", "num_examples": 9, "upload_bytes": 1000, "own_accuracy": 0.5}
    size = len(class_names)
    return results.make_results(
        seed=0,
        config={"min-confidence": 0.2},
        clients={client: figures | {"aggregated_accuracy": 0.75} for client in clients},
        aggregated={"aggregation": "fine-tuning", "architecture": "small_resnet", "accuracy": 0.75},
        methods={"local-all": {"accuracy": 0.5, "per_client": dict.fromkeys(clients, 0.5)}},
        synthesis={"num_images": 9, "seconds": 1.0, "images_per_second": 9.0},
        stages={"synthesis": 1.0},
        missing={},
        matrix={client: dict.fromkeys(clients, 0.5) for client in clients},
        confusion={
            "class_names": class_names,
            "counts": [[int(i == j) for j in range(size)] for i in range(size)],
            "per_client": {client: [1.0] * size for client in clients},
        },
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("large")
    return page.render(root, run_of(root, [f"c{i}" for i in range(180)], [f"class {i}" for i in range(345)]))


def test_a_large_federations_page_stays_small(large: str):
    assert len(large.encode()) < MAX_BYTES


@pytest.mark.parametrize(
    "sentence",
    [
        "12 of 180 clients shown",
        "20 of 345 classes shown",
        "24 of 180 clients' models shown",
        "30 of 345 classes, the hardest, shown",
        "The whole table has 345 rows; it is in results.json.",
    ],
)
def test_what_is_cut_is_said(large: str, sentence: str):
    assert sentence in unescape(large)


def test_every_client_has_its_row(large: str):
    assert large.count('<th scope="row">c179</th>') == 1


def test_names_in_every_script_are_shown(tmp_path: Path):
    html = page.render(tmp_path, run_of(tmp_path, SCRIPTS, SCRIPTS))

    for name in SCRIPTS:
        assert f'alt="Synthetic images of class {name} for client {name}"' in html


def test_one_client_with_one_class_has_a_page(tmp_path: Path):
    html = page.render(tmp_path, run_of(tmp_path, ["alone"], ["thing"]))

    assert f"right on {format_percent(0.75)} % of their images" in html
    assert "Most often" not in html


def test_a_large_federations_card_is_cut_and_says_so(tmp_path: Path):
    card = model_card.render(run_of(tmp_path, [f"c{i}" for i in range(180)], ["猫"]), ["猫"])

    assert "50 of 180 clients shown" in card
    assert "猫" in card
