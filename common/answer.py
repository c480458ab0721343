"""What a client says before it trains, so that the server can offer it a start: the answer to a QUERY message."""

import json
from typing import Literal

from flwr.app import ConfigRecord, RecordDict
from pydantic import Field, ValidationError

from common.contracts import Contract, Name, explain_error
from common.manifest import MOST_CLASSES

RECORD = "answer"


class Answer(Contract):
    """Nothing in it is about an image: the names of classes are what a client's manifest tells in any case."""

    client: Name
    architecture: str
    """The architecture that the client will train, with `+groupnorm` in private training."""
    class_names: list[Name] = Field(min_length=1, max_length=MOST_CLASSES)
    upload: Literal["own", "student", "both"] = "own"
    """The classifiers that it will upload."""
    warm_start: bool = True
    """Whether it takes a start."""

    def to_records(self) -> RecordDict:
        return RecordDict({RECORD: ConfigRecord({"json": json.dumps(self.to_json())})})


def read_answer(records: RecordDict) -> Answer:
    """The answer in a client's reply.

    Raises
    ------
    ValueError: the reply holds no valid answer; the message says what is wrong.
    """
    try:
        content = json.loads(str(records.config_records[RECORD]["json"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"its answer is not JSON ({type(error).__name__}: {error})") from None
    try:
        return Answer.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain_error(error, "its answer")) from None
