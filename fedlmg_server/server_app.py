"""The Flower ServerApp: collect uploads, aggregate, evaluate and report; all files are in the workspace."""

import errno
from contextlib import suppress
from functools import partial

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import Config, ConfigError
from fedlmg_server import pipeline, preflight
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.events import RunFailed, RunFinished
from fedlmg_server.flower.versions import read_versions
from fedlmg_server.monitor import tracking
from fedlmg_server.quarantine import QuorumError
from fedlmg_server.report.growing import GrowingReport
from fedlmg_server.run import Run
from fedlmg_server.workspace import Workspace

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = Config.from_run_config(context.run_config)
    run = Run(config, Workspace.open(config, read_versions()))
    with run.workspace.lock():
        try:
            preflight.check_config(config)
            with tracking.track_run(run.workspace, config):
                report = GrowingReport(run)
                strategy = FedLMG(config, run.workspace, partial(pipeline.aggregate, run), report.follow)
                strategy.start(grid)
                report.finish(strategy)
        except Exception as error:
            with suppress(OSError):
                is_mistake = isinstance(error, ConfigError | OSError) and not isinstance(error, QuorumError)
                run.workspace.log(RunFailed(reason=explain_failure(error), is_mistake=is_mistake))
            raise
        run.workspace.log(RunFinished())


def explain_failure(error: Exception) -> str:
    """Why the run failed, in one sentence for the operator."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full, so {error.filename or 'a file'} could not be written: free space and repeat the "
            "command, which continues the run"
        )
    return str(error) or type(error).__name__
