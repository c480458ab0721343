"""The question before the training: what clients answer, who is refused, and what each gets to start from."""

from collections.abc import Collection
from functools import cached_property

from common import labels
from common.answer import Answer
from common.config import Config, ConfigError
from common.labels import class_key
from common.labels.left_out import explain_left_out
from common.names import safe_name
from common.start import Start
from fedlmg_server.collection.broadcast import ReplyError
from fedlmg_server.collection.classes import explain_excess, find_excess, find_unusable, is_closed
from fedlmg_server.collection.identity import Identity
from fedlmg_server.collection.introduction import Introduction
from fedlmg_server.collection.upload_checks import UploadError, check_architecture
from fedlmg_server.diffusion.vocabulary import Vocabulary, open_vocabulary
from fedlmg_server.events import Note
from fedlmg_server.general.models import make_general_models
from fedlmg_server.general.starts import make_start
from fedlmg_server.networks import check_network
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace


class Question(Introduction):
    """Answers by node, and what follows from them. The run's classes are fixed once, in the workspace."""

    def __init__(self, config: Config, workspace: Workspace, identity: Identity) -> None:
        super().__init__(identity)
        self.config, self.workspace = config, workspace
        self.aliases = labels.parse_aliases(config.clients.class_aliases)
        self.left_out: dict[int, dict[str, str]] = {}
        """Node -> its classes, in the client's spelling, that it must not train for -> why; its answer lacks them."""
        self.is_over = False
        """Whether clients are sent their starts; one that appears later is asked nevertheless."""
        self._starts: dict[tuple[str, ...], Start] = {}
        self._former: dict[int, str] = {}
        """Node -> name of a client that has answered from another node since."""

    def keep(self, node: int, answer: Answer) -> None:
        super().keep(node, answer)
        self._settle({node: answer})

    def drop_gone(self, connected: Collection[int]) -> None:
        """Forget the answers of nodes that are not connected, where the client has answered from another node since:
        without a key it is a new node after every start."""
        newest = {answer.client: node for node, answer in self.answers.items()}
        for node, answer in list(self.answers.items()):
            if node not in connected and node != newest[answer.client]:
                self._former[node] = self.answers.pop(node).client

    @property
    def names(self) -> dict[int, str]:
        return self._former | super().names

    def _check(self, answer: Answer) -> None:
        """What would otherwise come out when the client has trained."""
        try:
            if why := explain_excess(len(answer.class_names), len(answer.class_names), self.config):
                raise UploadError(why)
            check_architecture(answer.architecture, self.config)
            labels.check_distinct(answer.class_names, self.aliases)
            size = self.config.training.image_size
            check_network(answer.architecture, len(answer.class_names), size, self.config.builders)
        except (UploadError, ConfigError, ValueError) as error:
            raise ReplyError(str(error), answer.client) from None

    def _settle(self, answers: dict[int, Answer]) -> None:
        """Leave out classes of these answers that the diffusion model cannot draw or tell apart, or that come too late;
        refuse a client that nothing is left of."""
        fixed = self.workspace.fixed_class_names
        spelt = {str(node): self._spell(answer) for node, answer in answers.items()}
        found = find_unusable(spelt, self._vocabulary, fixed, is_closed(self.config, fixed))
        for node, answer in answers.items():
            if not (why := found.get(str(node))):
                continue
            pairs = zip(answer.class_names, spelt[str(node)], strict=True)
            self.left_out[node] = self.left_out.get(node, {}) | {own: why[name] for own, name in pairs if name in why}
            kept = [name for name in answer.class_names if name not in self.left_out[node]]
            said = explain_left_out(self.left_out[node])
            if not kept or self.config.clients.unknown_classes == "quarantine":
                self._refuse(node, said if kept else f"{said}; and no class remains")
                continue
            self.answers[node] = answer.model_copy(update={"class_names": kept})
            self.workspace.log(Note(text=f"client '{answer.client}': {said}"))

    def _refuse(self, node: int, reason: str) -> None:
        self.refused[node] = self.answers.pop(node).client, reason

    def _limit(self) -> None:
        """Refuse the clients with the most classes, until all together keep within the run's limits."""
        spaces = {str(node): self._spell(answer) for node, answer in self.answers.items()}
        held = {node: len(names) for node, names in spaces.items()}
        for node, why in find_excess(spaces, held, self.config, self.workspace.fixed_class_names).items():
            self._refuse(int(node), why)

    @property
    def _known_names(self) -> list[str]:
        """Classes whose spelling wins over the clients'."""
        return self.workspace.fixed_class_names or list(self._vocabulary.names or ())

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return open_vocabulary(self.config.synthesis)

    def _spell(self, answer: Answer) -> list[str]:
        spaces = {"": self._known_names, answer.client: answer.class_names}
        return labels.in_one_spelling(spaces, self.aliases)[answer.client]

    def fix_class_names(self) -> None:
        """Fix the run's classes as the union of all that were answered so far, unless they are fixed already."""
        if not self.workspace.fixed_class_names:
            self._settle(dict(self.answers))
            self._limit()
        if not self.workspace.fixed_class_names and self.answers:
            # Two clients of one name are told apart, for it is not known yet which of them will be taken.
            answered = {f"{answer.client}\0{node}": answer.class_names for node, answer in self.answers.items()}
            spelt = labels.in_one_spelling({"": self._known_names, **answered}, self.aliases)
            self.workspace.fix_class_names(labels.union_of_names([spelt[client] for client in answered]))

    def prepare(self) -> None:
        """From now on clients get their starts: fix the run's classes, and make the general models that the answers
        ask for.

        Raises
        ------
        FolderError, ConfigError, RuntimeError: there are no general images, or no general model of the student.
        """
        self.is_over = True
        self.fix_class_names()
        told = {safe_name(answer.client): self.left_out.get(node, {}) for node, answer in self.answers.items()}
        self.workspace.class_notes.note_told(told)
        if self.workspace.fixed_class_names:
            asked = [name for answer in self.answers.values() for name in self._wanted(answer)]
            made = make_general_models(self._run, [self.student, *asked])
            settings = self.config.distillation
            if self.student not in made and (settings.aggregation == "merge" or not settings.student_initialisation):
                raise ConfigError(
                    f"no general model of '{self.student}' could be made, so the returned model has no start (the "
                    "notes above say why): choose another 'student-architecture', or set 'warm-start=false'"
                )

    @property
    def student(self) -> str:
        return self.config.distillation.student_architecture

    @property
    def _run(self) -> Run:
        return Run(self.config, self.workspace)

    def _wanted(self, answer: Answer) -> list[str]:
        """Architectures of the general models that a client is sent. One that uploads a copy of the student trains its
        own classifier from scratch: that guides as well (measured), and spares the server a general model."""
        if not answer.warm_start:
            return []
        return [answer.architecture if answer.upload == "own" else self.student]

    def start_of(self, node: int) -> Start | None:
        """What a client that answered gets to start from; None if it wants nothing, if no general model is good
        enough, or if it holds a class that is none of the run's, which the run's events tell."""
        answer = self.answers[node]
        if not (wanted := self._wanted(answer)):
            return None
        self.fix_class_names()
        known = {class_key(name, self.aliases) for name in self.workspace.fixed_class_names}
        if strange := [name for name in answer.class_names if class_key(name, self.aliases) not in known]:
            text = f"'{answer.client}' came late and holds the class '{strange[0]}', which no other client has"
            self.workspace.log(Note(text=f"{text}: it trains from scratch"))
            return None
        start = self._make_start(wanted)
        return start if start.models else None

    def start_of_returned(self) -> Start | None:
        """What goes to the clients with the returned model: the general model of its architecture, and replay images;
        None if no client was there whose classes could be asked."""
        return self._make_start([self.student]) if self.workspace.fixed_class_names else None

    def _make_start(self, wanted: list[str]) -> Start:
        if tuple(wanted) not in self._starts:
            self._starts[tuple(wanted)] = make_start(self._run, wanted)
        return self._starts[tuple(wanted)]
