"""Options of commands that read images: which of them are read, and how many are kept decoded."""

from typing import Annotated

import typer

AllowOutside = Annotated[bool, typer.Option(help="Follow links and paths that lead out of the folder.")]
MaxMegapixels = Annotated[
    float, typer.Option(min=0.001, help="Most million pixels of an image (of a JPEG four times that).")
]
ImageGigabytes = Annotated[
    float, typer.Option(min=0, help="Most GB of decoded images in the cache, if yours would fill the memory.")
]
