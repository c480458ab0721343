"""What the server measures of a run for its report, where the clients are virtual and their images are at hand."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from common.evaluation import Evaluation
from fedlmg_server.baselines import compare, fine_tuned
from fedlmg_server.baselines.compare import Measurements, OnProgress
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
        return compare.join_what_is_returned(*self._read(evaluations))

    def measure(self, evaluations: Mapping[str, Evaluation]) -> Measurements:
        """As `measure_returned`, and with the config key `compare` rows of every baseline."""
        if not self.run.config.options.compare or not has_virtual_clients(self.run):
            return self.measure_returned(evaluations)
        unanswered, kept = self._read(evaluations)
        with self._stage("baselines", len(compare.trained_methods(self.run))) as on_progress:
            return compare.measure_everything(self._virtual, unanswered, kept, on_progress)

    def _read(self, evaluations: Mapping[str, Evaluation]) -> tuple[Measurements, dict[str, fine_tuned.Matrix]]:
        """What every client's own model and its fine-tuned ones read."""
        num_clients = len(self.run.uploads)
        with self._stage("measurement", (1 + len(fine_tuned.KINDS)) * num_clients) as on_progress:
            if self._unanswered is None:
                self._unanswered = compare.measure_unanswered(self._virtual, on_progress)
            else:
                on_progress(num_clients)
            return self._unanswered, fine_tuned.measure(self._virtual, evaluations, on_progress)

    @contextmanager
    def _stage(self, name: str, total: int) -> Iterator[OnProgress]:
        """Yields what hears of each number of models that are done."""
        completed = 0

        def on_progress(count: int) -> None:
            nonlocal completed
            completed += count
            self.run.workspace.log(Progress(stage=name, completed=completed, total=total, unit="models"))

        with self.run.workspace.stage(name):
            yield on_progress
