"""The command `fedlmg-client join`: take part in a federation, or show with `--dry-run` what would be sent.

Modules that need PyTorch are imported inside the command, so that a waiting client needs little memory.
"""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.datasets.readers.parts import split_part
from common.names import LONGEST_NAME, is_sane_name
from common.network import SERVER_PORT
from common.reading_options import AllowOutside, ImageGigabytes, MaxMegapixels
from common.terminal import OTHER_SIDE, print_failure

console = Console()


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
    from common.clients.node_config import cache_path
    from common.config import Config
    from fedlmg_client import join as joining
    from fedlmg_client.server import Server, ServerError, read_address

    if missing := [
        path for path in (split_part(data.expanduser())[0], ca, key) if path and not path.expanduser().exists()
    ]:
        raise print_failure(console, f"{missing[0]} does not exist: correct the path")
    given_and_unset: dict[str, tuple[Any, Any]] = {
        "name": (name, ""),
        "data-path": (_absolute(data), ""),
        "architecture": (architecture, ""),
        "upload": (upload, ""),
        "max-membership-auc": (max_membership_auc, None),
        "dp-epsilon": (dp_epsilon, None),
        "warm-start": (not no_warm_start, True),
        "share-evaluation": (not no_share_evaluation, True),
        "allow-outside": (allow_outside, False),
        "max-megapixels": (max_megapixels, MAX_MEGAPIXELS),
        "image-gigabytes": (image_gigabytes, IMAGE_GIGABYTES),
    }
    node_config = {name: given for name, (given, unset) in given_and_unset.items() if given != unset}
    node_config["cache-path"] = _absolute(cache) if cache else str(cache_path(node_config, Config()))
    _check_settings(node_config)
    cache_folder = Path(str(node_config["cache-path"]))
    if dry_run:
        _rehearse(node_config, cache_folder, run_config or [])
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


def _check_settings(node_config: dict[str, Any]) -> None:
    """End the command with a sentence on the first setting that cannot be used."""
    from common.clients.node_config import client_name, read_node_config
    from common.config import Config, ConfigError

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


def _rehearse(node_config: dict[str, Any], cache_folder: Path, run_config: list[str]) -> None:
    """Train, and show what would be sent."""
    from common.config import Config, ConfigError
    from common.config.overrides import read_overrides
    from fedlmg_client import dry_run

    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(cache_folder, error) from None
    try:
        dry_run.show_upload(node_config, Config.from_run_config(read_overrides(None, run_config)), console)
    except (ConfigError, ValueError, OSError) as error:
        raise print_failure(console, error) from None


def _cannot_write(cache_folder: Path, error: OSError) -> typer.Exit:
    return print_failure(console, f"the folder {cache_folder} cannot be written, choose another --cache: {error}")


def _absolute(path: Path) -> str:
    return str(path.expanduser().resolve())


def _resolved(path: Path | None) -> Path | None:
    return path and path.expanduser().resolve()
