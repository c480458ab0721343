"""What the server measures of a run for its report, where the clients are virtual and their images are at hand."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from common.evaluation import Evaluation
from fedlmg_server.baselines import compare, fine_tuned
from fedlmg_server.baselines.compare import Measurements
from fedlmg_server.baselines.virtual_run import VirtualRun, has_virtual_clients
from fedlmg_server.events import Progress
from fedlmg_server.run import Run


class Measuring:
    """The measurements of one run whose model is made; nothing is measured twice."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._unanswered: Measurements | None = None

    @cached_property
    def _virtual(self) -> VirtualRun:
        return VirtualRun.from_run(self.run)

    def measure_returned(self, evaluations: Mapping[str, Evaluation]) -> Measurements:
        """Rows of what the run returns; `evaluations`: client -> what it measured itself, as far as it has."""
        if not has_virtual_clients(self.run):
            return Measurements()
        with self._stage() as on_progress:
            unanswered = self._measure_unanswered(on_progress)
            return compare.measure_what_is_returned(self._virtual, evaluations, unanswered, on_progress)

    def measure(self, evaluations: Mapping[str, Evaluation]) -> Measurements:
        """As `measure_returned`, and with the config key `compare` rows of every baseline."""
        if not self.run.config.options.compare or not has_virtual_clients(self.run):
            return self.measure_returned(evaluations)
        with self._stage(len(compare.trained_methods(self.run))) as on_progress:
            unanswered = self._measure_unanswered(on_progress)
            return compare.measure_everything(self._virtual, evaluations, unanswered, on_progress)

    def _measure_unanswered(self, on_progress: Callable[[int], None]) -> Measurements:
        if self._unanswered is None:
            self._unanswered = compare.measure_unanswered(self._virtual, on_progress)
        else:
            on_progress(len(self.run.uploads))
        return self._unanswered

    @contextmanager
    def _stage(self, num_students: int = 0) -> Iterator[Callable[[int], None]]:
        """Yields what hears of each number of models that are done: every client's own, its fine-tuned ones, and the
        students."""
        completed, total = 0, (1 + len(fine_tuned.KINDS)) * len(self.run.uploads) + num_students

        def on_progress(count: int) -> None:
            nonlocal completed
            completed += count
            self.run.workspace.log(Progress(stage="measurement", completed=completed, total=total, unit="models"))

        with self.run.workspace.stage("measurement"):
            yield on_progress
