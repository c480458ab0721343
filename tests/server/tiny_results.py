"""The figures of a run that never was."""

from fedlmg_server.results import MethodResult, ModelResult, SynthesisResult, make_results, write_results
from fedlmg_server.workspace import Workspace


def write_finished(
    workspace: Workspace, methods: dict[str, dict[str, float]], stages: dict[str, float], num_images: int = 0
) -> None:
    """methods: name -> client -> accuracy; stages: name -> seconds."""
    results = make_results(
        seed=0,
        config={},
        clients={},
        aggregated=ModelResult(aggregation="fine-tuning", architecture="small_resnet", accuracy=None),
        methods={name: MethodResult(accuracy=None, per_client=per_client) for name, per_client in methods.items()},
        synthesis=SynthesisResult(num_images=num_images, seconds=0.0, images_per_second=0.0),
        stages=stages,
        missing={},
    )
    write_results(workspace.report, results)
