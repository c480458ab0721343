"""Replies to the server in place of errors: the full sentence stays on the client, only a public one is sent."""

import functools
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict

from common.clients.node_config import cache_path, client_name
from common.config import Config
from common.devices import release_cached_memory
from common.telling import ToldError, public_sentence
from fedlmg_client.status import Failed, append_event

Handler = Callable[[Message, Context], Message]


def answer_errors(handler: Handler) -> Handler:
    """The handler of a message, with a reply for everything that it raises; memory is freed after each call.

    Flower would send the text of an error that leaves a handler, and with it paths and names of files.
    """

    @functools.wraps(handler)
    def answered(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except Exception as error:  # Whatever it is, its text stays here.
            return _make_reply(error, message, context)
        finally:
            release_cached_memory()

    return answered


def _make_reply(error: Exception, message: Message, context: Context) -> Message:
    """A reply that tells the server, in one sentence, why this client cannot answer; all else is printed and logged."""
    name, cache = _find_client(context)
    if not isinstance(error, ToldError | OSError | ValueError):
        print("".join(traceback.format_exception(error)), flush=True)
    local = str(error) or type(error).__name__
    print(f"{name}: {local}", flush=True)
    if cache:
        append_event(cache, Failed(reason=local))
    reply = ConfigRecord({"client": name, "reason": public_sentence(error)})
    return Message(RecordDict({"error": reply}), reply_to=message)


def _find_client(context: Context) -> tuple[str, Path | None]:
    """The client's name and cache, as far as its settings tell them."""
    config = Config()
    with suppress(Exception):
        config = Config.from_run_config(context.run_config)
    with suppress(Exception):
        return client_name(context.node_config, config), cache_path(context.node_config, config)
    return str(context.node_config.get("name", "")), None
