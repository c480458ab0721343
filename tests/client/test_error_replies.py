"""What an error of a client tells the server: never a name of a file, folder, class or path on the client."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from common.config import ConfigError
from common.datasets.readers.image_files import ImageError
from common.datasets.readers.listing import FolderError
from common.manifest import ManifestError
from common.start import StartError
from fedlmg_client import client_app, returned, uploading
from fedlmg_server.flower.compat import act_as_task

ROOT = Path(__file__).parents[2]
PLANTED = "zqx"
"""A part of every name of a file, folder, class or path on the client."""
RUN_CONFIG = {"dataset": "", "local-epochs": 1, "architectures": "small_resnet", "image-size": 16}
KINDS = (MessageType.QUERY, MessageType.TRAIN, MessageType.EVALUATE)
TOLD = ("ToldError", "FolderError", "ConfigError")
"""Classes of errors that have a public sentence."""
HARMLESS = {
    "MISSING", "kind", "FEWEST", "most:g", "nearest[0]", "name", "patch", "partitions", "image_size",
    "SMALLEST_IMAGE", "size:.1f", "smaller", "refused", "privacy.dp_epsilon:g", "delta:.1g", "label", "key(name)",
    "words", "index", "LEAST_IMAGES", "problem", "error.problem",
    "os.strerror(error.errno)",
}  # fmt: skip
"""What public sentences may show: counts, figures, keys, known architectures, and what the server itself said."""


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    """A folder of three images in each of two classes, in a process that Flower has stamped."""
    folder = tmp_path / "zqx-clinic" / "zqx-patients"
    for label in ("zqx-positive", "zqx-negative"):
        for number in range(3):
            (folder / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number, len(label), 0)).save(folder / label / f"zqx-smith-{number}.png")
    with act_as_task():
        yield folder


def ask(kind: str, node_config: dict, run_config: dict = RUN_CONFIG) -> RecordDict:
    """The client's reply to one kind of message."""
    said = {"have": "{}", "max-upload-megabytes": 100.0, "model": "{}"}
    content = RecordDict({"config": ConfigRecord(said), "arrays": ArrayRecord()})
    context = Context(1, 7, {"name": "site-a"} | node_config, RecordDict(), run_config)
    return client_app.app(Message(content, 7, kind), context).content


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def data(path: Path, **more: object) -> dict:
    return {"data-path": str(path)} | {key.replace("_", "-"): value for key, value in more.items()}


def empty_class(images: Path) -> dict:
    write(images / "zqx-rare" / "zqx-jones.png", "no image")
    return data(images)


def stranger(images: Path) -> dict:
    (images / "train").mkdir()
    return data(images)


def only_test(images: Path) -> dict:
    (images / "zqx-inner" / "test" / "zqx-a").mkdir(parents=True)
    return data(images / "zqx-inner")


def same_in_case(images: Path) -> dict:
    (images / "zqx-POSITIVE").mkdir()
    (images / "zqx-positive" / "zqx-smith-0.png").rename(images / "zqx-POSITIVE" / "zqx-smith-0.png")
    return data(images)


def table(text: str | bytes, name: str = "zqx-table.csv") -> Callable[[Path], dict]:
    return lambda images: data(write(images / name, text))


def two_tables(images: Path) -> dict:
    for name in ("zqx-a.csv", "zqx-b.csv"):
        write(images / name, "path,label\nzqx-positive/zqx-smith-0.png,zqx-c\n")
    return data(images)


def broken_cache(images: Path) -> dict:
    return data(images, cache_path=str(write(images.parent / "zqx-cache", "a file")))


def initialisation(content: str | bytes | None, name: str) -> Callable[[Path], dict]:
    def given(images: Path) -> dict:
        path = images.parent / name
        return data(images, initialisation=str(path if content is None else write(path, content)))

    return given


CASES: dict[str, Callable[[Path], dict]] = {
    "no folder": lambda images: data(images / "zqx-nowhere"),
    "no part": lambda images: data(Path(f"{images}#zqx-part")),
    "no class folders": lambda images: data(images / "zqx-positive"),
    "unknown kind of file": table("text", "zqx-notes.doc"),
    "class without a readable image": empty_class,
    "strange split folder": stranger,
    "no training split": only_test,
    "classes that differ in case": same_in_case,
    "nothing to train on": lambda images: data(write(images / "zqx-one.csv", "path,label\n").parent / "zqx-one.csv"),
    "table without columns": table("zqx-file,zqx-class\n"),
    "table of nothing": table("path,label\nzqx-gone.png,zqx-c\n"),
    "table that is none": table(b"path,label\n\xff\xfe\x00zqx"),
    "unknown split": table("path,label,split\nzqx-positive/zqx-smith-0.png,zqx-c,zqx-split\n"),
    "some splits": table("path,label,split\n" + "".join(
        f"zqx-positive/zqx-smith-{number}.png,zqx-c,{split}\n" for number, split in enumerate(("train", "")))),
    "two tables": two_tables,
    "list that is none": table("zqx zqx\n", "zqx_train.txt"),
    "list of a wrong name": table("zqx/zqx.png 0\n", "zqx.txt"),
    "list of nothing": table("zqx/zqx.png 0\n", "zqx_train.txt"),
    "a long name of a class": lambda images: (images / "zqx-positive").rename(images / ("zqx" * 40)) and data(images),
    "cache is a file": broken_cache,
    "unknown architecture": lambda images: data(images, architecture="zqx_net"),
    "builder": lambda images: data(images, architecture="zqx_module:zqx_net"),
    "no initial weights": initialisation(None, "zqx.safetensors"),
    "broken initial weights": initialisation("zqx", "zqx.safetensors"),
    "broken pickle": initialisation("zqx", "zqx.pth"),
    "impossible value": lambda images: data(images, dp_epsilon="zqx"),
    "impossible choice": lambda images: data(images, upload="zqx"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_name_of_the_client_is_in_the_reply_and_all_are_on_its_console(
    case: str, images: Path, capsys: pytest.CaptureFixture
):
    node_config = {"cache-path": str(images.parent / "zqx-cache")} | CASES[case](images)

    reply = ask(MessageType.TRAIN, node_config)["error"]

    assert PLANTED not in json.dumps(dict(reply)).lower()
    assert reply["client"] == "site-a"
    assert PLANTED in capsys.readouterr().out.lower()


ZqxError = type("ZqxError", (RuntimeError,), {})
LIBRARIES = [
    OSError(28, "zqx", "/zqx"), FileNotFoundError("zqx"), KeyError("zqx"), RuntimeError("zqx"), ValueError("zqx"),
    ImportError("zqx"), ZeroDivisionError("zqx"), MemoryError("zqx"), torch.OutOfMemoryError("zqx"), ZqxError("zqx"),
    UnidentifiedImageError("zqx"), SafetensorError("zqx"), UnicodeDecodeError("utf8", b"zqx", 0, 1, "zqx"),
    ImageError("zqx"), ManifestError("zqx", "zqx"), StartError("zqx"), ConfigError("zqx"),
    FolderError("zqx", "2 files"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", LIBRARIES, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_its_text_stays_on_the_client(
    error: Exception, kind: str, images: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise error

    for module in (client_app, uploading, returned):
        monkeypatch.setattr(module, "load_client_data", fail)

    reply = ask(kind, data(images, cache_path=str(images.parent / "zqx-cache")))["error"]

    assert PLANTED not in json.dumps(dict(reply)).lower()


def test_an_error_of_the_system_is_told_by_its_kind(images: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_app, "load_client_data", lambda *_: (_ for _ in ()).throw(OSError(28, "", "/zqx")))

    reason = ask(MessageType.QUERY, data(images))["error"]["reason"]

    assert "OSError: No space left on device" in reason


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_message_that_lacks_its_records_is_answered(kind: str, images: Path):
    context = Context(1, 7, {"name": "site-a"} | data(images), RecordDict(), RUN_CONFIG)

    reply = client_app.app(Message(RecordDict(), 7, kind), context)

    assert "does not tell in full (KeyError)" in reply.content["error"]["reason"]


def test_a_client_without_any_usable_setting_answers_as_well():
    with act_as_task():
        reply = ask(MessageType.TRAIN, {}, {"zqx-key": 1})["error"]

    assert reply["reason"] == "it does not know 1 config keys of the run: run the same version of FedLMG on both sides"


def test_the_whole_sentence_is_on_the_status_page(images: Path):
    ask(MessageType.QUERY, empty_class(images) | {"cache-path": str(images.parent / "cache")})

    assert "zqx-rare" in (images.parent / "cache" / "events.jsonl").read_text()


def list_public_sentences() -> Iterator[tuple[str, ast.expr, ast.Module]]:
    """Where each error with a public sentence is raised, the expression of that sentence, and its module."""
    for file in sorted([*(ROOT / "common").rglob("*.py"), *(ROOT / "fedlmg_client").rglob("*.py")]):
        module = ast.parse(file.read_text())
        for node in ast.walk(module):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            if (name := ast.unparse(node.exc.func)) in TOLD:
                told = node.exc.args[1:] or (node.exc.args if name == "ToldError" else [ast.Constant("")])
                yield f"{file.relative_to(ROOT)}:{node.lineno}", told[0], module


def shown_values(sentence: ast.expr, module: ast.Module) -> Iterator[str]:
    """Every value that a sentence can show beside its own words."""
    if isinstance(sentence, ast.JoinedStr):
        for part in sentence.values:
            if isinstance(part, ast.FormattedValue):
                yield ast.unparse(ast.JoinedStr([part]))[3:-2]
    elif isinstance(sentence, ast.IfExp):
        yield from shown_values(sentence.body, module)
        yield from shown_values(sentence.orelse, module)
    elif isinstance(sentence, ast.Name):
        given = [node.value for node in ast.walk(module) if isinstance(node, ast.Assign)
                 and sentence.id in [ast.unparse(target) for target in node.targets]]  # fmt: skip
        for value in given:
            yield from shown_values(value, module)
        if not given:
            yield sentence.id
    elif not isinstance(sentence, ast.Constant):
        yield ast.unparse(sentence)


def test_public_sentences_show_counts_keys_and_figures_only():
    sentences = list(list_public_sentences())

    shown = {
        f"{where} shows {value}"
        for where, sentence, module in sentences
        for value in shown_values(sentence, module)
        if value not in HARMLESS and not value.startswith("len(")
    }
    assert len(sentences) > 45
    assert not shown
