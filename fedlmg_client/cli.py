"""`fedlmg-client`: check a folder of images, join a federation, and use the models that come of it.

Modules that need PyTorch are imported inside the commands, so that a waiting client needs little memory.
"""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.datasets.readers.parts import split_part
from common.names import LONGEST_NAME, is_sane_name
from common.network import SERVER_PORT
from common.reading_options import AllowOutside, ImageGigabytes, MaxMegapixels
from common.storage.caches import image_cache
from common.terminal import OTHER_SIDE, print_failure, run_commands
from fedlmg_client import model_commands

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()


@app.callback()
def main() -> None:
    """FedLMG's client: train on your images, which never leave this machine, and get a better model back."""


@app.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Your images: an image folder, a CSV table or a list file; `FOLDER#PART` takes one part of it."
        ),
    ],
    image_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Width and height of images in the federation, in pixels.")
    ] = 32,
    allow_outside: AllowOutside = False,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
) -> None:
    """Check a folder of images: show its layout, classes, splits, image sizes and problems."""
    from common.datasets.readers import contents
    from common.datasets.readers.listing import FolderError
    from fedlmg_client import checking

    try:
        data = contents.inspect(folder.expanduser(), allow_outside, max_megapixels)
    except FolderError as error:
        raise print_failure(console, error) from None
    checking.show(data, folder, image_size, allow_outside, max_megapixels, console)


@app.command()
def audit_images(
    folder: Annotated[Path, typer.Argument(help="Folder of synthetic images, from the server's operator.")],
    data: Annotated[Path, typer.Option(help="Your images, given as for `check`.")],
    image_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Images are compared at this width and height, in pixels.")
    ] = 32,
    out: Annotated[Path, typer.Option(help="File to write: a picture of the nearest pairs.")] = Path(
        "nearest-pairs.png"
    ),
    allow_outside: AllowOutside = False,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    image_gigabytes: ImageGigabytes = IMAGE_GIGABYTES,
) -> None:
    """Check whether synthetic images are copies of your training images. Nothing leaves this machine."""
    from common.datasets.readers import folders
    from fedlmg_client import image_audit

    try:
        path, cache = data.expanduser(), image_cache()
        own = folders.load(
            path,
            image_size,
            allow_outside,
            max_megapixels=max_megapixels,
            cache=cache,
            most_gigabytes=image_gigabytes,
        ).splits
        synthetic = image_audit.read_folder(folder.expanduser(), image_size)
        report = image_audit.compare(synthetic, own["train"].images, own["validation"].join(own["test"]).images)
        image_audit.save_pairs(out, report, synthetic, own["train"].images)
    except (ValueError, OSError) as error:
        raise print_failure(console, error) from None
    console.print(f"{report.describe()}. A picture of the nearest pairs is in {escape(str(out))}", soft_wrap=True)


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="File to write the private key to; PATH.pub gets the public key.")],
) -> None:
    """Make a key pair, by which the server recognises this client."""
    from fedlmg_client import keys

    try:
        public = keys.generate_key_pair(path.expanduser())
    except OSError as error:
        raise print_failure(console, error) from None
    console.print(f"Send {public} to the server's operator. Keep {path} secret.", soft_wrap=True)


@app.command()
def join(
    host: Annotated[str, typer.Argument(help=f"The server: HOST or HOST:PORT; the default port is {SERVER_PORT}.")],
    data: Annotated[Path, typer.Option(help="Your images, given as for `check`.")],
    ca: Annotated[Path | None, typer.Option(help="Certificate file from the server's operator.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key file that `keygen` made.")] = None,
    name: Annotated[str, typer.Option(help="Your name in the federation. Default: the name of your data.")] = "",
    architecture: Annotated[
        str, typer.Option(help="Architecture of your classifier; `auto` chooses what this machine can train in time.")
    ] = "",
    cache: Annotated[Path | None, typer.Option(help="Folder for results. Default: ~/.cache/fedlmg/NAME.")] = None,
    image_gigabytes: ImageGigabytes = IMAGE_GIGABYTES,
    max_membership_auc: Annotated[
        float | None,
        typer.Option(help="Send nothing if the membership-inference AUC of your model is higher; 0.5 is chance."),
    ] = None,
    dp_epsilon: Annotated[
        float | None, typer.Option(help="Train with this differential-privacy budget (epsilon); 0 trains without.")
    ] = None,
    upload: Annotated[
        str,
        typer.Option(help="With a warm start, what you upload: `own`, `student` or `both`. Default: as the run says."),
    ] = "",
    no_warm_start: Annotated[
        bool, typer.Option("--no-warm-start", help="Start from your own initial weights, not the server's model.")
    ] = False,
    no_share_evaluation: Annotated[
        bool, typer.Option("--no-share-evaluation", help="Do not tell the server the accuracies on your test images.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Connect without TLS: on one machine, or in a network that you trust.")
    ] = False,
    allow_outside: AllowOutside = False,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train, show what would be sent, and send nothing.")
    ] = False,
    run_config: Annotated[
        list[str] | None, typer.Option(help="For --dry-run: config keys of the run, as \"key=value key='text'\".")
    ] = None,
) -> None:
    """Take part in a federation until interrupted.

    The client trains a classifier, uploads it once, then receives the aggregated model and measures it.
    """
    from common.clients.node_config import cache_path, client_name, read_node_config
    from common.config import Config, ConfigError
    from common.config.overrides import read_overrides
    from fedlmg_client import join as joining
    from fedlmg_client.server import Server, ServerError, read_address

    if missing := [
        path for path in (split_part(data.expanduser())[0], ca, key) if path and not path.expanduser().exists()
    ]:
        raise print_failure(console, f"{missing[0]} does not exist: correct the path")
    given = {"name": name, "data-path": _absolute(data), "architecture": architecture, "upload": upload}
    privacy = {"max-membership-auc": max_membership_auc, "dp-epsilon": dp_epsilon}
    refused = {"warm-start": not no_warm_start, "share-evaluation": not no_share_evaluation}
    node_config = {k: v for k, v in given.items() if v} | {k: v for k, v in privacy.items() if v is not None}
    node_config |= {k: v for k, v in refused.items() if not v}
    node_config |= {"allow-outside": True} if allow_outside else {}
    node_config |= {"max-megapixels": max_megapixels} if max_megapixels != MAX_MEGAPIXELS else {}
    if image_gigabytes != IMAGE_GIGABYTES:
        node_config["image-gigabytes"] = image_gigabytes
    node_config["cache-path"] = _absolute(cache) if cache else str(cache_path(node_config, Config()))
    try:
        read_node_config(node_config)
    except ConfigError as error:
        raise print_failure(console, error) from None
    if not is_sane_name(own := client_name(node_config, Config())):
        raise print_failure(
            console,
            f"a client's name must have 1 to {LONGEST_NAME} printable characters without outer blanks, got {own!r}: "
            "give another --name",
        )
    if quoted := [value for value in node_config.values() if '"' in str(value)]:
        raise print_failure(
            console, f"names and paths must not contain a double quote, but one is {quoted[0]!r}: choose another"
        )
    cache_folder = Path(str(node_config["cache-path"]))
    if dry_run:
        from fedlmg_client import dry_run as rehearsal

        try:
            cache_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(cache_folder, error) from None
        try:
            rehearsal.show_upload(node_config, Config.from_run_config(read_overrides(None, run_config or [])), console)
        except (ConfigError, ValueError, OSError) as error:
            raise print_failure(console, error) from None
        return
    if key and not name:
        raise print_failure(
            console, "--key needs --name: give the name under which the server's operator registered the key"
        )
    # SIGTERM must stop the SuperNode just as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server = Server(read_address(host), _resolved(ca), _resolved(key), insecure)
        server.check()
        joining.keep_joined(server, node_config, cache_folder, console)
    except ServerError as error:
        raise print_failure(console, error) from None
    except joining.SuperNodeError as error:
        raise print_failure(console, error, status=OTHER_SIDE) from None
    except OSError as error:
        raise _cannot_write(cache_folder, error) from None


def _cannot_write(cache_folder: Path, error: OSError) -> typer.Exit:
    return print_failure(console, f"the folder {cache_folder} cannot be written, choose another --cache: {error}")


def _absolute(path: Path) -> str:
    return str(path.expanduser().resolve())


def _resolved(path: Path | None) -> Path | None:
    return path and path.expanduser().resolve()


for command in (
    model_commands.predict,
    model_commands.report,
    model_commands.export,
    model_commands.personalise,
    model_commands.audit,
):
    app.command()(command)


def start() -> None:
    run_commands(app)


if __name__ == "__main__":
    start()
