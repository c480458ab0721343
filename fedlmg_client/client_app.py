"""The Flower ClientApp: say what will be trained, train once and upload, then measure the returned model.

Whatever a handler raises becomes a reply that names nothing of this machine (see `error_replies.py`).
"""

import json

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common import manifest
from common.clients.data import load_client_data
from common.clients.node_config import cache_path, client_name, read_node_config
from common.config import Config
from common.evaluation import Evaluation
from common.start import Start, StartError
from common.telling import ToldError
from common.upload import megabytes, sizes
from fedlmg_client import error_replies, faults, plan, returned
from fedlmg_client.status import EvaluationStarted, UploadStarted, append_event
from fedlmg_client.uploading import make_upload

app = ClientApp()


@app.query()
@error_replies.answer_errors
def answer_question(message: Message, context: Context) -> Message:
    """Reply with the client's `Answer` (see `common/answer.py`); the question's content is not read."""
    config = Config.from_run_config(context.run_config)
    data, cache = load_client_data(context.node_config, config), cache_path(context.node_config, config)
    data = faults.spoil_class_names(faults.find_fault(data, config), data)
    answer = plan.make_answer(context.node_config, config, data, cache)
    return Message(answer.to_records(), reply_to=message)


@app.train()
@error_replies.answer_errors
def train_and_upload(message: Message, context: Context) -> Message:
    """Reply with the upload, or with its manifest alone if the server already holds these weights.

    The message's `config` record holds `have`, the checksum of the upload that the server holds of this client, empty
    if it holds none; `max-upload-megabytes`, the largest upload; `refused`, why this client must not train, if it must
    not; and `left-out`, a JSON object of those of its classes that it must not train for -> why. With a warm start the
    message also holds the records of a `Start` (see `common/start.py`).
    """
    config = Config.from_run_config(context.run_config)
    question = message.content.config_records["config"]
    name = client_name(context.node_config, config)
    if refused := str(question.get("refused", "")):
        raise ToldError(f"the server refuses this client, so nothing was trained: {refused}")
    left_out = json.loads(str(question.get("left-out", "{}")))
    start = _read_start(message, context, name)
    records = make_upload(context.node_config, config, start, left_out).to_records()
    _check_size(records, float(str(question["max-upload-megabytes"])))
    if question["have"] == manifest.parse(records.config_records["manifest"]["json"]).checksum:
        records = RecordDict({"manifest": records["manifest"]})
    append_event(cache_path(context.node_config, config), UploadStarted(bytes=sum(sizes(records).values())))
    return Message(records, reply_to=message)


@app.evaluate()
@error_replies.answer_errors
def take_and_evaluate(message: Message, context: Context) -> Message:
    """Keep the returned model and a personal one, and reply with an `Evaluation` (see `common/evaluation.py`).

    The message's `arrays` record holds a state dict. Its `config` record holds `model`, a JSON object of architecture,
    class_names and preprocessing. With a warm start it also holds the records of a `Start`.
    """
    config = Config.from_run_config(context.run_config)
    name, cache = client_name(context.node_config, config), cache_path(context.node_config, config)
    append_event(cache, EvaluationStarted())
    arrays = message.content.array_records["arrays"].to_torch_state_dict()
    description = json.loads(str(message.content.config_records["config"]["model"]))
    evaluation = returned.take(context.node_config, config, arrays, description, _read_start(message, context, name))
    if not read_node_config(context.node_config).share_evaluation:
        evaluation = Evaluation(num_examples=0)
    return Message(evaluation.to_records(), reply_to=message)


def _read_start(message: Message, context: Context, name: str) -> Start | None:
    """The start in a message; one that is none is told, and the client goes on without."""
    try:
        start = Start.from_records(message.content)
    except StartError as error:
        print(f"{name}: the server's start cannot be read: {error}", flush=True)
        return None
    return start and plan.limit_replay(start, read_node_config(context.node_config).max_replay_megabytes, name)


def _check_size(records: RecordDict, most: float) -> None:
    if (size := megabytes(records)) > most:
        smaller = "set 'upload' to 'own'" if "student-copy" in records else "choose a smaller 'architecture'"
        raise ToldError(
            f"the upload has {size:.1f} MB, but the server accepts at most {most:g} MB ('max-upload-megabytes'): "
            f"{smaller}"
        )
