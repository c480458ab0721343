"""Text files have one encoding on every system: each call that opens one, or reads what a program prints, names it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "fedlmg_client", "fedlmg_server")


def calls_without_encoding(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and depends_on_the_system(node):
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def depends_on_the_system(call: ast.Call) -> bool:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if "encoding" in named:
        return False
    if name in ("read_text", "write_text"):
        # `metadata.Distribution.read_text` and `importlib.resources` have a file's name there.
        return not (name == "read_text" and call.args)
    if name == "open" and isinstance(call.func, ast.Name):
        mode = call.args[1] if len(call.args) > 1 else named.get("mode", ast.Constant("r"))
        return "b" not in ast.literal_eval(mode)
    return name in ("run", "Popen", "check_output") and bool({"text", "universal_newlines"} & named.keys())


@pytest.mark.parametrize("package", PACKAGES)
def test_text_is_read_and_written_as_utf_8(package: str):
    found = [line for path in sorted((ROOT / package).rglob("*.py")) for line in calls_without_encoding(path)]

    assert found == []
