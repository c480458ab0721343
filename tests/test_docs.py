"""What the documentation shows, works: Python blocks run in order, commands have the names, options and keys shown."""

import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest
import typer
from click import Command, Group
from typer.testing import CliRunner

from common.config import Config
from common.config.overrides import parse_pairs
from common.storage import atomic
from fedlmg_client.cli import app as client_app
from fedlmg_server.bench.commands import EXPERIMENTS
from fedlmg_server.cli import app as server_app
from tests.common.pictures import draw_noise

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    *("README.md", "deploy/README.md", "deploy/RECIPES.md"),
    *("deploy/experiments/RESULTS.md", "deploy/experiments/blood-cells.md"),
)
MARKDOWN = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "deploy/**/*.md", "common/**/*.md", "fedlmg_*/**/*.md")
    for path in ROOT.glob(pattern)
)
NODE_KEYS = {"data-path"}
APPS = {"fedlmg": server_app, "fedlmg-client": client_app}


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def of_experiments() -> list[tuple[str, list[str]]]:
    """(file, words) of every command in the comment above an experiment; `[--smoke]` may be given."""
    found = []
    for path in sorted((ROOT / "deploy" / "experiments").rglob("*.toml")):
        for command in re.findall(r"^# .*?\b(fedlmg [^`\n]+)$", path.read_text(), re.M):
            found.append((str(path.relative_to(ROOT)), re.sub(r"[\[\]]|(, then|;) .*", "", command).split()))
    return found


def commands() -> list[tuple[str, list[str]]]:
    """(document, words) of every `fedlmg` or `fedlmg-client` command, in a block or as `uv run ...` in the text.

    Continued lines are joined, comments dropped.
    """
    found = []
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.M | re.S)
        inline = re.findall(r"`(uv run [^`]+)`", text)
        for block in [*blocks(document, "bash"), *inline]:
            for line in block.replace("\\\n", " ").splitlines():
                tokens = shlex.shlex(line, posix=True, punctuation_chars=";&")
                tokens.whitespace_split = True
                for separator, group in groupby(tokens, lambda token: token in (";", "&", "&&")):
                    words = [] if separator else list(group)
                    words = words[2:] if words[:2] == ["uv", "run"] else words
                    if words and words[0] in APPS:
                        found.append((document, words))
    return found


@cache
def root_command(name: str) -> Group:
    return typer.main.get_command(APPS[name])


def resolve(words: list[str]) -> tuple[Command, list[str]]:
    """The command that the words name, and the words after its name."""
    command, rest = root_command(words[0]), words[1:]
    while isinstance(command, Group):
        assert rest, f"{' '.join(words)} names no command"
        _, command, rest = command.resolve_command(command.context_class(command), list(rest))
    return command, rest


@pytest.mark.parametrize(
    ("document", "words"), [*commands(), *of_experiments()], ids=lambda value: " ".join(value)[:60]
)
def test_documented_command_can_be_parsed(document: str, words: list[str]):
    command, rest = resolve(words)

    context = command.make_context(words[0], list(rest), resilient_parsing=False)

    for text in context.params.get("run_config") or ():
        Config.from_run_config(parse_pairs(text))
    if (config := context.params.get("config")) is not None:
        assert (ROOT / config).is_file() or (ROOT / EXPERIMENTS / config).is_file()


def test_commands_are_found_in_every_document():
    assert {document for document, _ in commands()} == set(DOCUMENTS)


def below(group: Group, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of every command of a group."""
    for name, command in group.commands.items():
        yield from below(command, *words, name) if isinstance(command, Group) else [(*words, name)]


@pytest.mark.parametrize("name", APPS)
def test_help_cuts_no_option_off_in_a_terminal_of_80_columns(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")

    shown = {words: CliRunner().invoke(APPS[name], [*words, "--help"]).output for words in below(root_command(name))}

    assert {
        words: cut for words, text in shown.items() if (cut := re.findall(r"--[\w-]+\N{HORIZONTAL ELLIPSIS}", text))
    } == {}


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_config_keys_named_in_text_exist(document: str):
    keys = set(Config().to_run_config())

    named = re.findall(r"`([a-z]+(?:-[a-z]+)*) ?= ?[^`]*`", (ROOT / document).read_text())

    assert set(named) - keys - NODE_KEYS == set()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def links(document: str) -> list[tuple[Path, str]]:
    """(file, anchor) of every link of a document into this repository."""
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    found = []
    for target in targets:
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            found.append(((ROOT / document).parent / path if path else ROOT / document, anchor))
    return found


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", MARKDOWN)
def test_every_link_leads_somewhere(document: str):
    broken = [
        f"{path}#{anchor}"
        for path, anchor in links(document)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]

    assert broken == []


def test_links_are_found():
    assert (ROOT / "deploy/README.md", "") in links("README.md")
    assert any(anchor for _, anchor in links("deploy/experiments/RESULTS.md"))


def finished_run(folder: Path) -> None:
    """A model that has learned nothing, and three images, where the documentation expects a finished run."""
    from PIL import Image

    from common.models import architectures
    from common.storage.tensors import write_tensors
    from common.vision.preprocessing import PreprocessSpec

    model = {"architecture": "small_resnet", "class_names": ["a", "b"], "preprocessing": PreprocessSpec().to_json()}
    write_tensors(folder / "model" / "model.safetensors", architectures.build("small_resnet", 2).state_dict())
    atomic.write_json(folder / "model" / "model.json", model)
    (folder / "synthetic" / "c" / "a").mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (32, 32), (70 * index, 0, 0)).save(folder / "synthetic" / "c" / "a" / f"{index}.png")


def photographs(folder: Path) -> None:
    """One of each of two classes, where the page on photographs expects them."""
    for name in ("lymphocyte", "monocyte"):
        draw_noise(folder / "public" / name / "1.jpg", 0)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if blocks(name, "python")])
def test_python_blocks_run_one_after_the_other(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    finished_run(tmp_path / "runs" / "default")
    photographs(tmp_path / "blood-cells")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("nets", None)  # A recipe writes it anew.
    names = {"__name__": "__main__"}

    for number, block in enumerate(blocks(document, "python")):
        exec(compile(block, f"{document}, Python block {number}", "exec"), names)


def test_a_checksum_is_not_called_a_signature():
    code = [path for name in ("common", "fedlmg_client", "fedlmg_server") for path in (ROOT / name).rglob("*.py")]
    texts = [*code, *(ROOT / document for document in MARKDOWN)]

    assert [path for path in texts if re.search(r"\bsignatures?\b", path.read_text(), re.I)] == []
