"""The Flower ServerApp: uploads, aggregation, evaluation, report, in a workspace that the same command continues."""

from functools import partial

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import Config
from common.workspace import Workspace
from fedlmg_server import pipeline, tracking
from fedlmg_server.strategy import FedLMG
from fedlmg_server.versions import versions

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = Config.from_run_config(context.run_config)
    workspace = Workspace.open(config, versions())
    with workspace.lock():
        try:
            with tracking.follow(workspace, config):
                strategy = FedLMG(config, workspace, partial(pipeline.aggregate, config, workspace))
                strategy.start(grid)
                pipeline.report(config, workspace, strategy.evaluations, strategy.missing)
        except Exception as error:
            workspace.log("run", state="failed", reason=str(error) or type(error).__name__)
            raise
        workspace.log("run", state="finished", reason="")
