"""The house keeps its plan: who may import what, what lies at the top, no unpickling."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, repository_files, trees

TOP_LEVEL = {
    *(*PACKAGES, "deploy", "tests"),
    *("pyproject.toml", "README.md", "LICENSE", "CONTRIBUTING.md", "constraints.txt"),
}
FLOWER_FILES = {
    *(f"common/{name}.py" for name in ("answer", "evaluation", "start", "upload")),
    *(f"fedlmg_client/{name}.py" for name in ("client_app", "compat", "error_replies")),
    *("fedlmg_server/server_app.py", "fedlmg_server/flower/compat.py"),
    *(
        f"fedlmg_server/collection/{name}.py"
        for name in ("uploads", "identity", "strategy", "collecting", "introduction", "messages")
    ),
    *(f"fedlmg_server/baselines/{name}.py" for name in ("rounds", "fedavg", "fedprox", "feddyn")),
}
SERVER_FLOORS = (
    {"method_names", "readers"},
    {"class_notes", "events", "flower", "forgotten", "networks", "results", "run_record", "trainer"},
    {"workspace"},
    {"run"},
    {"quarantine"},
    {"diffusion", "monitor"},
    {"synthesis"},
    {"general"},
    {"witness"},
    {"collection", "distillation"},
    {"baselines", "deployment"},
    {"erasure", "report"},
    {"evaluation", "pipeline", "preflight"},
    {"forecast", "forget", "pretraining", "runs"},
    {"bench"},
    {"server_app", "cli"},
)
"""Rooms of the server from the ground up: a package or a module of its root. A room imports only from below."""
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NOT_ON_A_CLIENT = (
    *(
        "accelerate",
        "diffusers",
        "matplotlib",
        "mlxtend",
        "opacus",
        "ray",
        "scipy",
        "sklearn",
        "torchmetrics",
        "transformers",
    ),
    "fedlmg_server",
)


@cache
def imports(path: str, tree: ast.Module) -> set[str]:
    """Dotted names that a file imports, wherever in it, relative ones resolved."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = Path(path).parts[: -node.level] if node.level else ()
            base = ".".join([*parents, *filter(None, [node.module])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


def importers(package: str, allowed: set[str] | str = frozenset(), inside: tuple[str, ...] = PACKAGES) -> list[str]:
    """Files under `inside` that import `package`; `allowed` is a set of files or a folder's prefix."""
    return [
        path
        for path, tree in trees().items()
        if Path(path).parts[0] in inside
        and not (path.startswith(allowed) if isinstance(allowed, str) else path in allowed)
        and any(name.split(".")[0] == package for name in imports(path, tree))
    ]


@pytest.mark.parametrize("package", ["fedlmg_client", "fedlmg_server"])
def test_common_imports_nothing_of_ours(package: str):
    assert importers(package, inside=("common",)) == []


def test_client_and_server_never_meet():
    assert importers("fedlmg_server", inside=("fedlmg_client",)) == []
    assert importers("fedlmg_client", inside=("fedlmg_server",)) == []


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("diffusers", "fedlmg_server/diffusion/"),
        ("transformers", "fedlmg_server/diffusion/"),
        ("flwr", FLOWER_FILES),
        ("opacus", {"fedlmg_client/private_training.py"}),
    ],
)
def test_heavy_packages_stay_in_their_home(package: str, home: set[str] | str):
    assert importers(package), f"nothing imports {package} any longer: take it off this list"
    assert importers(package, allowed=home) == []


PRIVATE_PARTS = re.compile(r"(^|\.)_(?!_)|^flwr\.(supercore|supernode|superlink|proto)\b")
"""In the dotted name of what is imported: parts of a library that it does not document."""


def private_names(path: str, tree: ast.Module) -> set[str]:
    """Private parts of libraries that a file imports, and private attributes of others that it reads or sets."""
    found = {name for name in imports(path, tree) if PRIVATE_PARTS.search(name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            found.add(ast.unparse(node))
    return {name for name in found if not name.startswith(("self.", "cls."))} - {"os._exit"}


def test_private_names_of_libraries_stand_in_compat():
    files = {path: tree for path, tree in trees().items() if path.startswith(PACKAGES)}

    using = {path for path, tree in files.items() if private_names(path, tree)}

    assert {path for path in using if not path.endswith("/compat.py")} == set()
    assert len(using) == 3, "private names of libraries are no longer found"


def rooms_of_the_server() -> set[str]:
    parts = [Path(path).with_suffix("").parts for path in trees()]
    return {names[1] for names in parts if names[0] == "fedlmg_server"} - {"__init__"}


def test_every_room_of_the_server_has_one_floor():
    listed = [room for floor in SERVER_FLOORS for room in floor]

    assert sorted(listed) == sorted(rooms_of_the_server())


def test_server_imports_downwards():
    floors = {room: number for number, rooms in enumerate(SERVER_FLOORS) for room in rooms}
    upward = [
        f"{path} imports {name}"
        for path, tree in trees().items()
        for name in imports(path, tree)
        if path.startswith("fedlmg_server/") and name.startswith("fedlmg_server.")
        for room, other in [(Path(path).with_suffix("").parts[1], name.split(".")[1])]
        if room != other and floors[other] >= floors[room]
    ]
    assert upward == []


def test_contributing_names_the_floors():
    paragraph = re.search(r"from the ground up: ([^.]*)\.", (ROOT / "CONTRIBUTING.md").read_text())

    assert [set(re.findall(r"`(\w+)`", floor)) for floor in paragraph[1].split(";")] == list(SERVER_FLOORS)


def test_every_module_says_what_lives_there():
    modules = {path: ast.get_docstring(tree) for path, tree in trees().items() if Path(path).parts[0] in PACKAGES}

    assert len(modules) > 100
    assert [
        path for path, text in modules.items() if not (text or "").partition("\n")[0].rstrip().endswith((".", ":"))
    ] == []


def test_top_level_is_fixed():
    strangers = {name.split("/")[0] for name in repository_files()} - TOP_LEVEL
    assert {name for name in strangers if not name.startswith(".")} == set()


def test_no_lock_file_is_tracked():
    assert "uv.lock" not in repository_files("--cached")


def test_nothing_is_unpickled():
    found = []
    for path, tree in trees().items():
        found += [f"{path} imports {name}" for name in imports(path, tree) if name.split(".")[0] in UNPICKLERS]
        found += [f"{path}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Call) and unpickles(node)]
    assert found == []


def unpickles(call: ast.Call) -> bool:
    settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    unsafe_load = ast.unparse(call.func) == "torch.load" and settings.get("weights_only") != "True"
    return unsafe_load or settings.get("allow_pickle", "False") != "False"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=True)", False),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path)", False),
    ],
)
def test_unpickling_is_recognised(source: str, expected: bool):
    assert unpickles(ast.parse(source, mode="eval").body) is expected


STARTS = f"""
import importlib, json, sys
loaded = {{}}

def start(who, package, *modules):
    for name in modules:
        importlib.import_module(name)
    loaded[who] = package in sys.modules

start("operator's command", "torch", "fedlmg_server.cli")
for name in [name for name in sys.modules if name.split(".")[0] == "fedlmg_server"]:
    del sys.modules[name]
sys.modules.update(dict.fromkeys({NOT_ON_A_CLIENT}))
waiting = "fedlmg_client.cli", "fedlmg_client.join", "fedlmg_client.supernode", "common.clients.node_config"
start("client that waits", "torch", *waiting)
start("client that checks a folder", "torch", "common.datasets.readers.contents", "fedlmg_client.checking")
importlib.import_module("fedlmg_client.client_app")
for name in {NOT_ON_A_CLIENT}:
    del sys.modules[name]
start("server that waits", "diffusers", "fedlmg_server.server_app")
print(json.dumps(loaded))
"""
"""One interpreter plays all parts, the lightest first: a module that is None in `sys.modules` cannot be imported."""


def test_client_starts_without_the_server_s_packages_and_who_waits_without_heavy_ones():
    done = subprocess.run([sys.executable, "-c", STARTS], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "operator's command": False,
        "client that waits": False,
        "client that checks a folder": False,
        "server that waits": False,
    }
