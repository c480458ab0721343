"""The house keeps its plan: who may import what, what lies at the top, no unpickling."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "fedlmg_client", "fedlmg_server")
TOP_LEVEL = {
    *(*PACKAGES, "deploy", "tests"),
    *("pyproject.toml", "README.md", "LICENSE", "CONTRIBUTING.md", "constraints.txt"),
}
FLOWER_FILES = {
    *("common/upload.py", "fedlmg_client/client_app.py", "fedlmg_client/cli.py", "fedlmg_client/supernode.py"),
    *("fedlmg_server/server_app.py", "fedlmg_server/strategy.py", "fedlmg_server/flower.py", "fedlmg_server/cli.py"),
    *(f"fedlmg_server/baselines/{name}.py" for name in ("rounds", "fedavg", "fedprox", "feddyn")),
}
SERVER_LAYERS = (
    {"diffusion", "plan"},
    {"synthesis", "distillation"},
    {"admission", "upload_checks"},
    {"strategy", "report", "export", "baselines"},
    {"pipeline", "flower", "running"},
    {"bench"},
    {"server_app", "cli"},
)
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NOT_ON_A_CLIENT = (
    *("accelerate", "diffusers", "matplotlib", "mlxtend", "opacus", "ray", "sklearn", "torchmetrics", "transformers"),
    "fedlmg_server",
)


@cache
def repository_files(*flags: str) -> tuple[str, ...]:
    """Paths that are tracked, or would be: what git ignores is left out."""
    flags = flags or ("--cached", "--others", "--exclude-standard")
    listing = subprocess.run(["git", "ls-files", "-z", *flags], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return tuple(sorted(name for name in set(listing.stdout.split("\0")) if name and (ROOT / name).is_file()))


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse((ROOT / name).read_text()) for name in repository_files() if name.endswith(".py")}


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
    assert importers(package, allowed=home) == []


def test_server_layers_import_downwards():
    layer = {name: depth for depth, names in enumerate(SERVER_LAYERS) for name in names}
    upward = [
        f"{path} imports {name}"
        for path, tree in trees().items()
        for name in imports(path, tree)
        if path.startswith("fedlmg_server/") and name.startswith("fedlmg_server.")
        if layer.get(Path(path).with_suffix("").parts[1], 9) < layer.get(name.split(".")[1], 0)
    ]
    assert upward == []


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


def file_map() -> list[str]:
    """Paths in the fenced block under the README's heading "File map"; indented lines lie in the folder above them."""
    block = re.search(r"^#+ .*file map.*?^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.I | re.M | re.S)
    paths, folders = [], [(-1, "")]
    for line in block[1].splitlines() if block else []:
        line = re.sub(r"[│├└─]", " ", line)
        indent = len(line) - len(line.lstrip())
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        for name in re.split(r"\s{2,}|\t| #", line.strip())[0].split(","):
            if re.fullmatch(r"[\w.*/-]+", name.strip()):
                paths.append(folders[-1][1] + name.strip())
                if name.strip().endswith("/"):
                    folders.append((indent, paths[-1]))
    return paths


def test_every_path_of_the_file_map_exists():
    assert [path for path in file_map() if not any(ROOT.glob(path.rstrip("/")))] == []


def test_every_file_has_its_line_in_the_file_map():
    listed = {path.rstrip("/") for path in file_map()} - set(PACKAGES)

    files = [Path(name) for name in repository_files() if name.startswith(PACKAGES) and name.endswith(".py")]

    unlisted = [str(file) for file in files if not {str(file), str(file.parent)} & listed]
    assert [name for name in unlisted if not name.endswith("__init__.py")] == []


def test_client_starts_without_server_and_simulation_packages():
    modules = ("fedlmg_client.client_app", "fedlmg_client.cli")
    if missing := [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()]:
        pytest.skip(f"no {', '.join(missing)} yet")
    program = f"import sys\nfor name in {NOT_ON_A_CLIENT}: sys.modules[name] = None\nimport {', '.join(modules)}"

    start = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert start.returncode == 0, start.stderr


@pytest.mark.parametrize(
    ("modules", "package"),
    [
        ("fedlmg_client.cli, fedlmg_client.join, fedlmg_client.supernode, common.node_config", "torch"),
        ("fedlmg_server.cli", "torch"),
        ("fedlmg_server.server_app", "diffusers"),
    ],
    ids=["client that waits", "operator's command", "server that waits"],
)
def test_who_waits_does_without(modules: str, package: str):
    program = f"import sys, {modules}\nprint('{package}' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout == "False\n", done.stderr
