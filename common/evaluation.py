"""What a client measures on its own test images when the returned model arrives: accuracies, all that it tells."""

import json
from typing import Literal, Self

from flwr.app import ConfigRecord, RecordDict
from pydantic import Field

from common.contracts import Contract, Count, Fraction, parse_record

RECORD = "evaluation"

Kind = Literal["returned", "own", "general", "no_federation", "personal"]
"""A model that a client measures."""


class Evaluation(Contract):
    """Accuracies in [0, 1] on the client's own test images; None: not measured, or the client declines to tell."""

    num_examples: Count
    """Test images; 0 if the client has none."""
    returned: Fraction | None = None
    """The returned model."""
    own: Fraction | None = None
    """The classifier that the client uploaded."""
    general: Fraction | None = None
    """The general model that the server made without any client."""
    no_federation: Fraction | None = None
    """The general model, fine-tuned by this client alone."""
    personal: Fraction | None = None
    """The returned model, fine-tuned by this client."""
    balanced: dict[Kind, Fraction] = Field(default_factory=dict)
    """Model, by the name of its accuracy above -> the mean of its accuracies on each class."""

    def to_records(self) -> RecordDict:
        return RecordDict({RECORD: ConfigRecord({"json": json.dumps(self.to_json())})})

    @classmethod
    def from_records(cls, records: RecordDict) -> Self:
        """The evaluation in a client's reply.

        Raises
        ------
        ValueError: the reply holds no valid evaluation; the message says what is wrong.
        """
        if RECORD not in records.config_records:
            raise ValueError("its reply lacks the record 'evaluation'")
        return parse_record(cls, records.config_records[RECORD].get("json"), "its evaluation")
