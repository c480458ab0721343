"""The question who a node is, before it is sent anything that is about one client alone."""

from collections.abc import Collection

from flwr.app import Message

from common.answer import Answer, read_answer
from fedlmg_server.collection.broadcast import ReplyError
from fedlmg_server.collection.identity import Identity


class Introduction:
    """Answers by node: who the clients are, and who of them must not train."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.answers: dict[int, Answer] = {}
        """Node -> answer, of the clients that may train."""
        self.refused: dict[int, tuple[str, str]] = {}
        """Node -> client name (empty if unknown) and why the client must not train."""

    def receive(self, reply: Message, node: int, others: Collection[str]) -> None:
        """Keep a client's answer; one that is no reason to train is kept in `refused`.

        others: names of clients whose uploads have arrived.

        Raises
        ------
        ReplyError: the reply holds no answer.
        """
        self.identity.raise_client_error(reply, node)
        try:
            answer = read_answer(reply.content)
        except ValueError as error:
            raise ReplyError(str(error), self.identity.name_of(node, "")) from None
        try:
            self.identity.check(answer.client, node, others)
            self._check(answer)
        except ReplyError as error:
            self.refused[node] = error.client, str(error)
        else:
            self.keep(node, answer)

    def keep(self, node: int, answer: Answer) -> None:
        """Take in an answer that passed the checks."""
        self.answers[node] = answer

    def _check(self, answer: Answer) -> None:
        """
        Raises
        ------
        ReplyError: the client must not train.
        """

    @property
    def names(self) -> dict[int, str]:
        """Node -> name that its client gave."""
        return {node: answer.client for node, answer in self.answers.items()}
