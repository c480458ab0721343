"""The Flower app that is submitted with a run: a copy of the installed packages."""

import shutil
from importlib import metadata
from pathlib import Path

from common.config.run import KEYS, UNSET
from fedlmg_server.flower.connection import to_toml

PACKAGES = ("common", "fedlmg_client", "fedlmg_server")


def write_app(folder: Path) -> Path:
    """Write a Flower app with the installed packages, and return its folder, `folder`/fedlmg.

    A checkout is copied too, because Flower would search all of it, including its virtual environment.
    """
    app = folder / "fedlmg"
    for package in PACKAGES:
        source = Path(__file__).resolve().parents[2] / package
        for file in source.rglob("*.py"):
            target = app / package / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    (app / "pyproject.toml").write_text(
        f'[project]\nname = "fedlmg"\nversion = "{metadata.version("fedlmg")}"\n'
        'description = "One-shot federated learning"\nlicense = { text = "Apache-2.0" }\n'
        '[tool.flwr.app]\npublisher = "fedlmg"\n[tool.flwr.app.components]\n'
        'serverapp = "fedlmg_server.server_app:app"\nclientapp = "fedlmg_client.client_app:app"\n'
        f"[tool.flwr.app.config]\n{to_toml(dict.fromkeys(KEYS, UNSET))}",
        encoding="utf-8",
    )
    return app
