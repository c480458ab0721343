"""What the server measures of a run for its report, where the clients are virtual and their images are at hand."""

from collections.abc import Mapping
from functools import cached_property

from common.evaluation import Evaluation
from fedlmg_server.baselines import compare
from fedlmg_server.baselines.compare import Measurements
from fedlmg_server.baselines.virtual_run import VirtualRun, has_virtual_clients
from fedlmg_server.events import Progress
from fedlmg_server.run import Run


class Measuring:
    """The measurements of one run whose model is made; nothing is measured twice."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def _virtual(self) -> VirtualRun:
        return VirtualRun.from_run(self.run)

    @cached_property
    def _unanswered(self) -> Measurements:
        return compare.measure_unanswered(self._virtual)

    def measure_returned(self, evaluations: Mapping[str, Evaluation]) -> Measurements:
        """Rows of what the run returns; `evaluations`: client -> what it measured itself, as far as it has."""
        if not has_virtual_clients(self.run):
            return Measurements()
        with self.run.workspace.stage("measurement"):
            return compare.measure_what_is_returned(self._virtual, evaluations, self._unanswered)

    def measure(self, evaluations: Mapping[str, Evaluation]) -> Measurements:
        """As `measure_returned`, and with the config key `compare` rows of every baseline."""
        if not self.run.config.options.compare or not has_virtual_clients(self.run):
            return self.measure_returned(evaluations)
        completed, total = 0, len(compare.trained_methods(self.run))

        def on_progress(count: int) -> None:
            nonlocal completed
            completed += count
            self.run.workspace.log(Progress(stage="measurement", completed=completed, total=total, unit="models"))

        with self.run.workspace.stage("measurement"):
            return compare.measure_everything(self._virtual, evaluations, self._unanswered, on_progress)
