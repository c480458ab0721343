"""The report of a run whose evaluations are awaited: there before any client is asked, and again as they answer."""

import time

from fedlmg_server.baselines.compare import Measurements
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.events import Note
from fedlmg_server.report.measuring import Measuring
from fedlmg_server.report.write import write_report
from fedlmg_server.run import Run

MOST_TIME = 0.1
"""Share of the time of waiting that may go into writing the report again."""
LEAST_SECONDS = 60.0
"""Between two reports: each lists and reads the synthetic images that it shows."""


class GrowingReport:
    """Written first when the model is made, then while evaluations arrive, and last with all that came of them."""

    def __init__(self, run: Run) -> None:
        self.run, self.measuring = run, Measuring(run)
        self._measured: Measurements | None = None
        self._told: int | None = None
        """Number of evaluations in the report; None before there is one."""
        self._not_before = 0.0
        """When it may be written again, by the monotonic clock."""

    def follow(self, strategy: FedLMG) -> None:
        """Write the report if there is none, or if evaluations came since; what fails is a note, for clients must get
        their model all the same."""
        if self._told == len(strategy.evaluations) or time.monotonic() < self._not_before:
            return
        is_first, started, self._told = self._told is None, time.monotonic(), len(strategy.evaluations)
        try:
            self._measured = self._measured or self.measuring.measure_returned({})
            write_report(self.run, strategy.evaluations, strategy.missing, strategy.unevaluated, self._measured)
        except Exception as error:
            self.run.workspace.log(Note(text=f"the report before the evaluation cannot be written: {error}"))
        else:
            if is_first:
                awaited = f"evaluations of {len(strategy.unevaluated)} clients are awaited, and will be added"
                path = self.run.workspace.report / "index.html"
                self.run.workspace.log(Note(text=f"the model and its report are ready: {path}; {awaited}"))
        ended = time.monotonic()
        self._not_before = ended + max(LEAST_SECONDS, (ended - started) * (1 - MOST_TIME) / MOST_TIME)

    def finish(self, strategy: FedLMG) -> None:
        """Write the report with every evaluation that came, and what can be measured now."""
        measured = self.measuring.measure(strategy.evaluations)
        write_report(self.run, strategy.evaluations, strategy.missing, strategy.unevaluated, measured)
