"""The model that goes back to the clients, as the workspace keeps it in `model/`.

`model.json` names no client, so it can be handed on with the weights; `making.json` and `quality.json` stay here.
"""

import torch

from common.storage.atomic import write_json
from common.storage.tensors import read_tensors, write_tensors
from fedlmg_server.distillation.aggregate import Distilled
from fedlmg_server.distillation.student import build_classifier
from fedlmg_server.run import Run


def save_model(run: Run, distilled: Distilled) -> None:
    """Write the weights, `quality.json` and `making.json`, then `model.json`, which makes the model whole; that of an
    earlier model is removed first.

    Raises
    ------
    ValueError: a model whose weights are not finite.
    """
    folder, weights = run.workspace.model, distilled.model.state_dict()
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ValueError("the model's weights are no numbers: lower 'student-learning-rate', or raise 'temperature'")
    (folder / "model.json").unlink(missing_ok=True)
    write_json(folder / "quality.json", {client: score.to_json() for client, score in distilled.scores.items()})
    write_tensors(folder / "model.safetensors", weights)
    description = {
        "architecture": run.config.distillation.student_architecture,
        "class_names": run.class_names,
        "preprocessing": run.preprocess.to_json(),
        "aggregation": run.config.distillation.aggregation,
        "history": distilled.history,
    }
    making = {"made_from": run.checksums, "rejected": distilled.rejected}
    if merged := distilled.merged:
        making["merge"] = {
            "scale": merged.scale,
            "accuracies": {str(scale): round(value, 4) for scale, value in merged.accuracies.items()},
            "left_out": merged.left_out,
        }
    write_json(folder / "making.json", making)
    write_json(folder / "model.json", description)


def is_model_saved(run: Run) -> bool:
    """Whether the workspace holds a whole model made from just these uploads."""
    return run.model_description.get("made_from") == run.checksums


def load_model(run: Run) -> torch.nn.Module:
    """The saved model, in evaluation mode."""
    description = run.model_description
    model = build_classifier(run, description["architecture"], len(description["class_names"]))
    model.load_state_dict(read_tensors(run.workspace.model / "model.safetensors")[0])
    return model.to(run.device).eval()
