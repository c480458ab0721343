"""Export of a finished model: ONNX, ONNX in INT8 and a `torch.export` program, each with the preprocessing inside.

Each takes uint8 RGB images (N, 3, H, W) of any N, H and W, and gives probabilities float32 (N, classes).
"""

import importlib
import os
from pathlib import Path

import torch

from common.models import quantization
from common.models.predictor import Classifier
from common.models.quantization import Cost
from common.storage.atomic import write_json

TOLERANCE = 1e-4
"""The largest difference in a probability that is allowed between ONNX Runtime and PyTorch."""
OPSET = 18


class ExportError(ValueError):
    """The export failed or differs from the model; the message is one sentence for the user."""


def export(
    model: Classifier, out: Path, batches: list[torch.Tensor], labels: list[int] | None = None
) -> tuple[float, Cost]:
    """Write `model.onnx`, `model.int8.onnx`, `model.pt2` and `labels.json` (class names, input, output) into `out`.

    Returns the largest difference in a probability between ONNX Runtime and PyTorch on `batches`, and the cost of INT8.

    Parameters
    ----------
    batches: images uint8 (N, 3, H, W) each. Every second batch calibrates INT8, and the other batches measure it. A
        single batch does both.
    labels: the class index of each image of all batches; without labels, only the agreement is measured.

    Raises
    ------
    ExportError: a package is missing, or the exported model differs by more than `TOLERANCE`.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise ExportError(
                f"the export needs the package '{package}', which is not installed: pip install 'fedlmg[export]'"
            ) from None
    out.mkdir(parents=True, exist_ok=True)
    program = _program(model)
    parts = {name: out / f".{name}.part{Path(name).suffix}" for name in ("model.pt2", "model.onnx")}
    torch.export.save(program, parts["model.pt2"])
    torch.onnx.export(
        program,
        f=parts["model.onnx"],
        input_names=["images"],
        output_names=["probabilities"],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    difference = _difference(model, parts["model.onnx"], batches)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the exported model's probabilities may differ from the model's by at most {TOLERANCE:.1g}, and differ by "
            f"{difference:.1g}: do not use the files in {out}"
        )
    for name, part in parts.items():
        os.replace(part, out / name)
    write_json(
        out / "labels.json",
        {
            "class_names": model.class_names,
            "input": {"name": "images", "dtype": "uint8", "shape": ["N", 3, "H", "W"], "channels": "RGB"},
            "output": {"name": "probabilities", "dtype": "float32", "shape": ["N", len(model.class_names)]},
        },
    )
    quantization.quantize(out / "model.onnx", out / "model.int8.onnx", batches[::2])
    return difference, _int8_cost(out, batches, labels)


def _int8_cost(out: Path, batches: list[torch.Tensor], labels: list[int] | None) -> Cost:
    """The cost of INT8 on the batches that did not calibrate it, or on the only batch."""
    if labels is not None and len(batches) > 1:
        of_batch = torch.tensor(labels).split([len(batch) for batch in batches])
        labels = torch.cat(of_batch[1::2]).tolist()
    return quantization.measure(out / "model.onnx", out / "model.int8.onnx", batches[1::2] or batches, labels)


def _program(model: Classifier) -> torch.export.ExportedProgram:
    size = model.preprocessing.image_size
    example = torch.zeros(2, 3, size + 3, size + 5, dtype=torch.uint8)
    dynamic = {"images": {0: torch.export.Dim("N"), 2: torch.export.Dim("H"), 3: torch.export.Dim("W")}}
    with torch.no_grad():
        return torch.export.export(model.eval(), (example,), dynamic_shapes=dynamic)


def _difference(model: Classifier, file: Path, batches: list[torch.Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        said = [torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]) for batch in batches]
        return max(float((here - model(batch)).abs().max()) for here, batch in zip(said, batches, strict=True))
