"""The Flower ServerApp: uploads, aggregation, evaluation, report, in a workspace that the same command continues."""

import errno
from contextlib import suppress
from functools import partial

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import Config
from fedlmg_server import pipeline
from fedlmg_server.collection.strategy import FedLMG
from fedlmg_server.flower.versions import versions
from fedlmg_server.monitor import tracking
from fedlmg_server.workspace import Workspace

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = Config.from_run_config(context.run_config)
    workspace = Workspace.open(config, versions())
    with workspace.lock():
        try:
            pipeline.check(config)
            with tracking.follow(workspace, config):
                strategy = FedLMG(config, workspace, partial(pipeline.aggregate, config, workspace))
                strategy.start(grid)
                pipeline.report(config, workspace, strategy.evaluations, strategy.missing, strategy.unevaluated)
        except Exception as error:
            with suppress(OSError):
                workspace.log("run", state="failed", reason=sentence(error))
            raise
        workspace.log("run", state="finished", reason="")


def sentence(error: Exception) -> str:
    """What went wrong, for the operator."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for {error.filename}: free some, and the same command continues; nothing is lost"
    return str(error) or type(error).__name__
