"""What a client says about its upload: `manifest.json`. Only this module reads and writes it.

A manifest comes from another party. Whatever its text, `parse` returns a valid Manifest or raises a ManifestError.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from common.contracts import Amount, Contract, Count, Fraction, Name, explain_error, show_value
from common.names import is_sane_name
from common.storage.atomic import write_json

SCHEMA = 1
MOST_CLASSES = 100_000
MOST_EPOCHS = 100_000
MOST_POINTS = 2000
"""The most points of a curve that is plotted."""


class ManifestError(ValueError):
    """One sentence on what is wrong with a manifest; `client` is its valid client name, or empty."""

    def __init__(self, reason: str, client: str = "") -> None:
        super().__init__(reason)
        self.client = client


class Preprocessing(Contract):
    """The client's `PreprocessSpec` (see `common/vision/preprocessing.py`)."""

    model_config = ConfigDict(extra="forbid")

    image_size: Annotated[Count, Field(ge=1)]
    mean: list[Annotated[float, Field(ge=-1e3, le=1e3)]] = Field(min_length=3, max_length=3)
    std: list[Annotated[float, Field(ge=1e-3, le=1e3)]] = Field(min_length=3, max_length=3)


class Epoch(Contract):
    """One epoch of the client's training."""

    epoch: Annotated[Count, Field(ge=1)]
    train_loss: float | None = None
    """The mean training loss; None if the client keeps it secret."""
    validation_accuracy: Fraction | None = None


class Training(Contract):
    """How the client trained. An accuracy is None if there were no images to measure it on, or if the client does not
    tell it."""

    num_examples: Count
    validation_accuracy: Fraction | None
    test_accuracy: Fraction | None
    """The accuracy of the model as trained."""
    test_accuracy_wire: Fraction | None = None
    """The accuracy of the model as uploaded, after its weights were rounded."""
    seconds: Amount = 0.0
    history: list[Epoch] = Field(max_length=MOST_EPOCHS)

    def losses(self) -> list[tuple[float, float]]:
        """(epoch, training loss) of at most 2000 epochs, without epochs whose loss is None."""
        told = [(entry.epoch, entry.train_loss) for entry in self.history[:MOST_POINTS]]
        return [(epoch, loss) for epoch, loss in told if loss is not None]

    def validation_accuracies(self) -> list[tuple[float, float]]:
        """(epoch, validation accuracy) of at most 2000 epochs, without epochs whose accuracy is None."""
        told = [(entry.epoch, entry.validation_accuracy) for entry in self.history[:MOST_POINTS]]
        return [(epoch, accuracy) for epoch, accuracy in told if accuracy is not None]


class Privacy(Contract):
    """The privacy budget that the client's private training kept (see `fedlmg_client/private_training.py`)."""

    epsilon: Annotated[float, Field(ge=0, le=1e9)]
    delta: Fraction
    max_grad_norm: Amount | None = None
    noise_multiplier: Amount | None = None


class Membership(Contract):
    """The result of a membership-inference attack on the model (see `fedlmg_client/audit.py`)."""

    auc: Fraction
    """Probability that a training image has a smaller loss than a held-out image; 0.5 is chance, 1 is certainty."""
    tpr_at_1_percent_fpr: Fraction
    """Share of training images found while 1 % of held-out images are mistaken for training images."""
    members: Count | None = None
    """Number of training images."""
    others: Count | None = None
    """Number of held-out images."""


class StudentCopy(Contract):
    """A second classifier in the upload: the student's architecture, trained from the same kind of start."""

    architecture: str
    class_names: list[Name] = Field(min_length=1, max_length=MOST_CLASSES)
    """The classes that it tells apart: all of the run."""
    sha256: str
    """The checksum of its weights (see `weights_digest`)."""
    start: str
    """The checksum of the general model that it started from."""
    validation_accuracy: Fraction | None
    seconds: Amount = 0.0
    """Duration of its training."""


def _check_schema(schema: int) -> int:
    if schema != SCHEMA:
        raise ValueError(f"this version reads schema {SCHEMA}, so both sides must run the same version of FedLMG")
    return schema


class Manifest(Contract):
    """The manifest of one upload."""

    schema_version: Annotated[int, AfterValidator(_check_schema)] = Field(alias="schema")
    client: Name
    architecture: str
    class_names: list[Name] = Field(min_length=1, max_length=MOST_CLASSES)
    class_counts: list[Count] = Field(max_length=MOST_CLASSES)
    """The number of training images of each class."""
    preprocessing: Preprocessing
    training: Training
    privacy: Privacy | None = None
    membership: Membership | None = None
    data: str
    """`folder`, or the virtual client whose data it is, such as `digits/mnist`."""
    sha256: str
    """The checksum of the weights (see `weights_digest`)."""
    start: str = ""
    """The checksum of the general model that the classifier started from; empty if it started from none."""
    student_copy: StudentCopy | None = None

    @property
    def checksum(self) -> str:
        """Of all weights in the upload: that of its classifier, joined with that of its copy of the student."""
        return f"{self.sha256}+{self.student_copy.sha256}" if self.student_copy else self.sha256

    @property
    def held_class_names(self) -> list[str]:
        """The classes of which the client has training images: those that its images can be imitated of."""
        return [name for name, count in zip(self.class_names, self.class_counts, strict=True) if count]

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        repeated, times = Counter(self.class_names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"names the class {show_value(repeated)} more than once")
        if len(self.class_counts) != len(self.class_names):
            raise ValueError(
                f"counts the images of {len(self.class_counts)} classes, but names {len(self.class_names)}"
            )
        return self

    def to_text(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(self.to_json())


def parse(text: object) -> Manifest:
    """The manifest in a JSON text.

    Raises
    ------
    ManifestError: the text is not a valid manifest.
    """
    try:
        content = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"its manifest is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ManifestError("its manifest is not a JSON object")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        client = str(content.get("client", ""))
        raise ManifestError(explain_error(error, "its manifest"), client if is_sane_name(client) else "") from None


def read(folder: Path) -> Manifest:
    """The manifest in the folder of an upload.

    Raises
    ------
    ManifestError: the file is not a valid manifest.
    OSError: there is no such file.
    """
    return parse((folder / "manifest.json").read_bytes())


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest to the folder of an upload."""
    write_json(folder / "manifest.json", manifest.to_json())
