"""Options of the command that starts a run: they travel in the run config and change nothing in the run's result."""

from pydantic.dataclasses import dataclass

from common.config.fields import RULES, Text


@dataclass(frozen=True, config=RULES)
class Options:
    """How this command goes about the run."""

    workspace: Text = "~/fedlmg/default"
    """Folder of the run on the server. Virtual clients keep their models there as well."""
    compare: bool = False
    """Measure every baseline besides the model that is returned, which doubles a run's time. Needs virtual clients."""
    trackers: str = ""
    """Experiment trackers that also receive the run's events, between commas: `tensorboard` writes files below the
    workspace; `mlflow` and `wandb` work where they are installed."""
    client_registry: str = ""
    """JSON file of the clients that `fedlmg server` knows: each client then answers under the name of its key. Empty
    accepts the name that a client gives itself."""
