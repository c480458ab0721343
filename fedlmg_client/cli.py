"""`fedlmg-client`: check a folder of images, join a federation, use the model that came back and see how good it is.

What needs PyTorch is imported where it is used, so that a client that waits stays small.
"""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.models import commands
from common.storage.atomic import write_bytes

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

MAX_LINES = 20
"""Printed of each kind of finding."""


@app.callback()
def main() -> None:
    """FedLMG on a client: your images stay in their folder."""


@app.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(help="What `data-path` will name: an image folder, a CSV table or a list; `#PART` takes one."),
    ],
    image_size: Annotated[int, typer.Option(min=1, max=4096, help="Pixels on a side that the federation uses.")] = 32,
    allow_outside: Annotated[bool, typer.Option(help="Follow links and paths that leave the folder.")] = False,
) -> None:
    """Say what training would find in a folder: its layout, classes, splits and sizes, and what is wrong with it."""
    from common.datasets.readers import folders
    from common.datasets.readers.listing import FolderError

    try:
        data = folders.load(folder.expanduser(), image_size, allow_outside)
    except FolderError as error:
        raise _failure(str(error)) from None
    counts = {split: part.labels.bincount(minlength=len(data.class_names)) for split, part in data.splits.items()}
    table = Table("class", *counts, title=escape(data.layout), show_footer=True)
    for column, total in zip(table.columns, ("total", *map(len, data.splits.values())), strict=True):
        column.footer = str(total)
    for index, name in enumerate(data.class_names):
        table.add_row(escape(name), *(str(int(count[index])) for count in counts.values()))
    console.print(table)
    widths, heights = zip(*data.sizes, strict=True)
    console.print(
        f"{len(data.class_names)} classes; {len(data.sizes)} sizes, {min(widths)} to {max(widths)} pixels wide and "
        f"{min(heights)} to {max(heights)} high, read as {image_size} squares"
    )
    _print_lines("skipped", data.problems)
    _print_lines("look at", data.warnings)


def _print_lines(kind: str, lines: list[str]) -> None:
    for line in lines[:MAX_LINES]:
        console.print(f"[yellow]{kind}:[/] {escape(line)}", soft_wrap=True)
    if len(lines) > MAX_LINES:
        console.print(f"[yellow]{kind}:[/] {len(lines) - MAX_LINES} more")


@app.command()
def audit_images(
    folder: Annotated[Path, typer.Argument(help="Synthetic images, which the server's operator gave you.")],
    data: Annotated[Path, typer.Option(help="Your images, as `check` takes them.")],
    image_size: Annotated[int, typer.Option(min=1, max=4096, help="Pixels on a side at which they are compared.")] = 32,
    out: Annotated[Path, typer.Option(help="Picture of the nearest pairs.")] = Path("nearest-pairs.png"),
) -> None:
    """Say whether synthetic images are copies of your training images. Nothing leaves this machine."""
    from common.datasets.readers import folders
    from fedlmg_client import audit as auditing
    from fedlmg_client import image_audit

    try:
        own = folders.load(data.expanduser(), image_size).splits
        synthetic = image_audit.read_folder(folder.expanduser(), image_size)
        report = image_audit.compare(synthetic, own["train"], auditing.joined(own["validation"], own["test"]))
        image_audit.save_pairs(out, report, synthetic, own["train"].images)
    except (ValueError, OSError) as error:
        raise _failure(str(error)) from None
    console.print(f"{report.sentence()}. The nearest pairs: {escape(str(out))}", soft_wrap=True)


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="Your images, as `check` takes them.")],
    model: Annotated[Path | None, typer.Option(help="The model's folder; without it, the one that came back.")] = None,
    builder: commands.Builder = None,
) -> None:
    """Say what a model gives away about your training images. Your own upload is audited before it is sent."""
    from common.models import predictor
    from fedlmg_client import audit as auditing

    try:
        found = auditing.of_folder(predictor.load(model or _returned(), builder), data.expanduser())
    except ValueError as error:
        raise _failure(str(error)) from None
    console.print(found.sentence(), soft_wrap=True)


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="File for the private key; the public one goes beside it.")],
) -> None:
    """Make the key pair by which the server knows this client; the public key goes to the server's operator."""
    from fedlmg_client import keys

    try:
        public = keys.generate(path.expanduser())
    except OSError as error:
        raise _failure(str(error)) from None
    console.print(f"Send {public} to the server's operator, and keep {path} to yourself.", soft_wrap=True)


@app.command()
def join(
    host: Annotated[str, typer.Argument(help="HOST or HOST:PORT of the server; the port is 9443 without one.")],
    data: Annotated[Path, typer.Option(help="Your images, as `check` takes them.")],
    ca: Annotated[Path | None, typer.Option(help="The certificate that the server's operator gave you.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key that `keygen` made.")] = None,
    name: Annotated[str, typer.Option(help="Your name in the federation; the data's without it.")] = "",
    architecture: Annotated[str, typer.Option(help="Of your classifier; `auto` tries what this machine can do.")] = "",
    cache: Annotated[Path | None, typer.Option(help="For results; ~/.cache/fedlmg/NAME without it.")] = None,
    max_membership_auc: Annotated[
        float | None, typer.Option(help="Send nothing if your model tells your training images better; 0.5 is a coin.")
    ] = None,
    dp_epsilon: Annotated[float | None, typer.Option(help="Train within this privacy budget; 0: none.")] = None,
    insecure: Annotated[bool, typer.Option(help="Without TLS: on one machine, or a network that you trust.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Train and show what would be sent, and send nothing.")] = False,
    run_config: Annotated[
        list[str] | None, typer.Option(help="For --dry-run: the federation's keys, \"key=value key='text'\".")
    ] = None,
) -> None:
    """Take part until interrupted: train, upload once, keep and measure the model that comes back."""
    from common.clients.node_config import cache_path
    from common.config import Config, ConfigError
    from common.config.overrides import read_overrides
    from fedlmg_client import join as joining

    if missing := [path for path in (_part(data), ca, key) if path and not path.expanduser().exists()]:
        raise _failure(f"{missing[0]} does not exist")
    given = {"name": name, "data-path": _absolute(data), "architecture": architecture}
    privacy = {"max-membership-auc": max_membership_auc, "dp-epsilon": dp_epsilon}
    node_config = {k: v for k, v in given.items() if v} | {k: v for k, v in privacy.items() if v is not None}
    node_config["cache-path"] = _absolute(cache) if cache else str(cache_path(node_config, Config()))
    if quoted := [value for value in node_config.values() if '"' in str(value)]:
        raise _failure(f"Flower cannot hand on {quoted[0]!r}: choose a name or path without a double quote")
    if dry_run:
        from fedlmg_client import dry_run as rehearsal

        try:
            rehearsal.show(node_config, Config.from_run_config(read_overrides(None, run_config or [])), console)
        except (ConfigError, ValueError, OSError) as error:
            raise _failure(str(error)) from None
        return
    if insecure and key:
        raise _failure("--key needs TLS: leave out --insecure")
    if key and not name:
        raise _failure("--key needs the --name that the server's operator registered it with")
    if key and b"PRIVATE KEY" not in key.expanduser().read_bytes():
        raise _failure(f"{key} is no private key: give the file beside the .pub one that `fedlmg-client keygen` made")
    # So that a polite kill, too, stops the SuperNode.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = joining.Server(joining.with_port(host), _resolved(ca), _resolved(key), insecure)
    try:
        joining.keep_joined(server, node_config, Path(node_config["cache-path"]), console)
    except OSError as error:
        raise _failure(f"{node_config['cache-path']} cannot be used as --cache: {error}") from None


def _part(data: Path) -> Path:
    """Without the `#PART` that takes one domain of it."""
    return Path(str(data).partition("#")[0])


def _absolute(path: Path) -> str:
    return str(path.expanduser().resolve())


def _resolved(path: Path | None) -> Path | None:
    return path and path.expanduser().resolve()


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[Path | None, typer.Option(help="The model's folder; without it, the one that came back.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of CSV.")] = False,
    builder: commands.Builder = None,
) -> None:
    """Print path, class and confidence of each image, read by the model that came back from the server."""
    commands.predict(model or _returned(), images, as_json, builder)


def _returned() -> Path:
    """The model that came back last."""
    from common.clients.node_config import CACHES

    if not (found := sorted(CACHES.glob("*/aggregated/model.json"), key=lambda path: path.stat().st_mtime)):
        raise _failure(f"no model came back yet below {CACHES}: name one with --model")
    return found[-1].parent


@app.command()
def report(
    cache: Annotated[
        Path, typer.Argument(help="The client's `cache-path`; without one, `~/.cache/fedlmg/<name>`.", metavar="CACHE")
    ],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; without it `report.html` in CACHE.")] = None,
) -> None:
    """Write a page about this client alone: its own model, the one that came back, and what that takes for what."""
    from fedlmg_client import page

    out = out or cache / "report.html"
    try:
        write_bytes(out, page.render(cache.expanduser()).encode())
    except (page.PageError, OSError) as error:
        raise _failure(str(error)) from None
    except (KeyError, TypeError) as error:
        raise _failure(f"what lies in {cache} is not whole ({error}): take part again, or name another cache") from None
    console.print(f"Report: {escape(str(out))}", soft_wrap=True)


app.command()(commands.export)


def _failure(sentence: str) -> typer.Exit:
    console.print(f"[red]{escape(sentence)}[/]", soft_wrap=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
