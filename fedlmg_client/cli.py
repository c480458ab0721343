"""`fedlmg-client`: check a folder of images, join a federation, and use the models that come of it.

Modules that need PyTorch are imported inside the commands, so that a waiting client needs little memory.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.reading_options import AllowOutside, ImageGigabytes, MaxMegapixels
from common.storage.caches import image_cache
from common.terminal import print_failure, run_commands
from fedlmg_client import join_command, model_commands

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


for command in (
    join_command.join,
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
