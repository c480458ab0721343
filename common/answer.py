"""What a client says before it trains, so that the server can offer it a start: the answer to a QUERY message."""

import json
from typing import Literal

from flwr.app import ConfigRecord, RecordDict
from pydantic import Field

from common.contracts import Contract, Name, parse_record
from common.manifest import MOST_CLASSES

RECORD = "answer"


class Answer(Contract):
    """Nothing in it is about an image: the names of classes are what a client's manifest tells in any case."""

    client: Name
    architecture: str
    """The architecture that the client will train, with `+groupnorm` in private training from scratch."""
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
    if RECORD not in records.config_records:
        raise ValueError("its reply lacks the record 'answer'")
    return parse_record(Answer, records.config_records[RECORD].get("json"), "its answer")
