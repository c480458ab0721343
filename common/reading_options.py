"""Options of commands that read images: which of them are read, and how many are kept decoded."""

from typing import Annotated

import typer

AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Follow links and paths that lead out of the folder.")
]
MaxMegapixels = Annotated[
    float,
    typer.Option(min=0.001, metavar="NUMBER", help="Most million pixels of an image (of a JPEG four times that)."),
]
ImageGigabytes = Annotated[
    float,
    typer.Option(
        min=0, metavar="NUMBER", help="Most GB of decoded images in the cache, if yours would fill the memory."
    ),
]
