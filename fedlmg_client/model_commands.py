"""Commands of `fedlmg-client` that use a client's models: classify, report, export, make personal again, audit.

Modules that need PyTorch are imported inside the commands, so that a waiting client needs little memory.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common.config.node import IMAGE_GIGABYTES, MAX_MEGAPIXELS
from common.models import commands
from common.names import folder_name
from common.reading_options import AllowOutside, ImageGigabytes, MaxMegapixels
from common.storage.atomic import write_bytes
from common.telling import first_line
from common.terminal import print_failure
from fedlmg_client import folders

console = Console()
WORDS = "`personal`, `returned` or `own`"
ChosenModel = Annotated[
    str,
    typer.Option(
        "--model", help=f"{WORDS} for the newest such model, or a folder. Default: personal, or else returned."
    ),
]
Cache = Annotated[
    Path,
    typer.Argument(help="The client's cache folder, usually ~/.cache/fedlmg/NAME.", metavar="CACHE"),
]


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: ChosenModel = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of CSV.")] = False,
    builder: commands.Builder = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
) -> None:
    """Classify images with your model: print path, class and confidence of each image."""
    commands.predict(find_folder(model), images, as_json, builder, max_megapixels)


def export(
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, model.int8.onnx, model.pt2 and labels.json.")],
    model: ChosenModel = "",
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Images on which to check the export, best in folders named by class. Default: noise."),
    ] = None,
    builder: commands.Builder = None,
) -> None:
    """Export your model as ONNX (float32 and INT8) and as a torch.export program."""
    commands.export(find_folder(model), out, images, builder)


def report(
    cache: Cache,
    model: Annotated[
        str, typer.Option(help=f"The model to show class by class: {WORDS}. Default: personal, or else returned.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="HTML file to write. Default: `report.html` in CACHE.")] = None,
) -> None:
    """Write an HTML page about this client: what the round was worth to it, and how its models do."""
    from fedlmg_client import page

    if model and model not in folders.MODELS:
        raise print_failure(console, f"--model must be {WORDS} here, got '{model}': name the cache as the argument")
    cache = cache.expanduser()
    out = out or cache / "report.html"
    try:
        write_bytes(out, page.render(cache, model).encode())
    except (page.PageError, OSError) as error:
        raise print_failure(console, error) from None
    console.print(f"Report: {escape(str(out))}", soft_wrap=True)


def personalise(
    data: Annotated[Path, typer.Option(help="Your images, given as for `check`.")],
    cache: Annotated[
        Path | None, typer.Argument(help="The client's cache folder. Default: ~/.cache/fedlmg/NAME.", metavar="CACHE")
    ] = None,
    name: Annotated[str, typer.Option(help="Your name in the federation, in place of CACHE.")] = "",
    allow_outside: AllowOutside = False,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    image_gigabytes: ImageGigabytes = IMAGE_GIGABYTES,
) -> None:
    """Make your personal model again, from the returned model in the cache. It needs no server, and sends nothing."""
    from common.clients.node_config import CACHES, NodeConfig
    from common.worth import say_worth
    from fedlmg_client import returned
    from fedlmg_client.models import TROUBLE

    if bool(cache) == bool(name):
        raise print_failure(console, "name your cache folder, or give --name NAME, and not both")
    cache = cache.expanduser() if cache else CACHES / folder_name(name)
    try:
        reading: NodeConfig = {
            "allow-outside": allow_outside,
            "max-megapixels": max_megapixels,
            "image-gigabytes": image_gigabytes,
        }
        measured = returned.compare_again(cache, {"data-path": str(data.expanduser().resolve()), **reading})
    except TROUBLE as error:
        raise print_failure(console, f"no personal model can be made in {cache}: {first_line(error)}") from None
    worth = say_worth(measured.no_federation, measured.personal)
    console.print(escape(f"Your personal model is in {cache / folders.PERSONAL}. {worth}".strip()), soft_wrap=True)


def audit(
    data: Annotated[Path, typer.Argument(help="Your images, given as for `check`.")],
    model: ChosenModel = "returned",
    builder: commands.Builder = None,
    allow_outside: AllowOutside = False,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    image_gigabytes: ImageGigabytes = IMAGE_GIGABYTES,
) -> None:
    """Measure how well a model tells your training images from others (membership inference).

    Your own upload is always audited before it is sent.
    """
    from common.models import predictor
    from fedlmg_client import audit as auditing

    try:
        classifier = predictor.load_classifier(find_folder(model), builder)
        found = auditing.audit_folder(classifier, data.expanduser(), allow_outside, max_megapixels, image_gigabytes)
    except ValueError as error:
        raise print_failure(console, error) from None
    console.print(auditing.describe_membership(found), soft_wrap=True)


def find_folder(model: str) -> Path:
    """The folder of a model that the option `--model` names by a word or by its path; empty names the default."""
    from common.clients.node_config import CACHES

    if model and model not in folders.MODELS:
        return Path(model)
    if not (found := folders.find_newest_model(CACHES, model)):
        kind = "returned model" if model in ("", "returned") else f"model '{model}'"
        raise print_failure(console, f"there is no {kind} in {CACHES} yet: name a model's folder with --model")
    return found
