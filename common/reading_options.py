"""Options of every command that reads images: which of them are read."""

from typing import Annotated

import typer

AllowOutside = Annotated[bool, typer.Option(help="Follow links and paths that lead out of the folder.")]
MaxMegapixels = Annotated[
    float, typer.Option(min=0.001, help="Most million pixels of an image (of a JPEG four times that).")
]
