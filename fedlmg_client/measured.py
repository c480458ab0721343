"""How a model does on the client's test images: `evaluation.json` beside the model, which never leaves the client."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from common.contracts import Contract, Count, Fraction, parse_record
from common.storage.atomic import write_json

FILE = "evaluation.json"
REMEDY = "join again, or name another cache folder"
"""What the user can do about damaged files of a cache."""


class Measured(Contract):
    """The accuracies and the confusion matrix of one model on one client's test images."""

    client: str
    accuracy: Fraction
    """0 without test images."""
    balanced_accuracy: Fraction
    """The same, as the mean over the classes that have test images."""
    class_names: list[str]
    """The client's classes; empty if its images could not be read."""
    correct: list[Annotated[int, Field(ge=-1)]]
    """For each class of the client, the model's index of that class, or -1 if the model lacks it."""
    confusion: list[list[Count]]
    """Counts of images; rows are the client's classes, columns the model's."""
    unmeasured: str = ""
    """Why nothing was measured, in a clause; empty if something was, or if the client has no test images."""

    @classmethod
    def nothing(cls, client: str, why: str) -> Self:
        return cls(
            client=client, accuracy=0, balanced_accuracy=0, class_names=[], correct=[], confusion=[], unmeasured=why
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """
        Raises
        ------
        FileNotFoundError: nothing was measured of the model in this folder.
        OSError, ValueError: the file cannot be read, or is damaged; the sentence names it.
        """
        file = folder / FILE
        try:
            return parse_record(cls, file.read_bytes(), str(file))
        except ValueError as error:
            raise ValueError(f"{error}: {REMEDY}") from None

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, self.to_json())

    @property
    def num_images(self) -> int:
        """Test images on which the model was measured."""
        return sum(map(sum, self.confusion))

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if not len(self.class_names) == len(self.correct) == len(self.confusion):
            raise ValueError("has class_names, correct and confusion of different lengths")
        if any(index >= len(line) for index, line in zip(self.correct, self.confusion, strict=True)):
            raise ValueError("has a correct class that the model lacks")
        return self
