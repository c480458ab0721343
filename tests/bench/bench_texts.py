"""Memory of a process with and without kept prompts, for the text encoder of Stable Diffusion 1; the last line is JSON.

The text encoder has its true shape (123 million weights) and is untrained; all other parts are tiny. Resident MB
(10**6 bytes), each of a process of its own: one that keeps the text encoder, the first one that keeps prompts and frees
it, and a later one that reads them. Linux alone.

uv run python -m tests.bench.bench_texts
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from common.config.synthesis import SynthesisConfig
from fedlmg_server.diffusion import opening
from fedlmg_server.diffusion.texts import Texts
from tests.server import tiny_pipelines

WIDTH, NAMES = 768, ["cat", "dog"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keeps-encoder", action="store_true")
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(measure(arguments.folder, arguments.keeps_encoder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_pipeline(Path(folder))
        command = [sys.executable, "-m", "tests.bench.bench_texts", "--folder", folder]
        found = {}
        for name, options in (("keeps the encoder", ["--keeps-encoder"]), ("first", []), ("later", [])):
            said = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
            found[name] = json.loads(said.splitlines()[-1])
            print(f"{name}: {found[name]}", flush=True)
    print(json.dumps(found))


def make_pipeline(folder: Path) -> None:
    """A tiny Stable Diffusion 1 whose text encoder is CLIP's ViT-L/14."""
    pipeline = tiny_pipelines.FAMILIES["stable-diffusion-1"]()
    pipeline.register_modules(
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=12,
                num_attention_heads=12,
                max_position_embeddings=pipeline.tokenizer.model_max_length,
            )
        ),
        unet=UNet2DConditionModel.from_config(dict(pipeline.unet.config) | {"cross_attention_dim": WIDTH}),
    )
    pipeline.save_pretrained(folder / "pipeline")


def measure(folder: Path, keeps_encoder: bool) -> dict[str, int]:
    """Resident MB of this process: at most, and once it has the prompts of two classes."""
    config = SynthesisConfig(diffusion_model=str(folder / "pipeline"))
    texts = None if keeps_encoder else Texts(folder / "prompts", set(NAMES))
    backend = opening.load_backend(config, torch.device("cpu"), texts)
    backend.condition(NAMES)
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    kilobytes = {words[0]: int(words[1]) for words in lines if words[0] in ("VmHWM:", "VmRSS:")}
    return {"peak": kilobytes["VmHWM:"] * 1024 // 10**6, "now": kilobytes["VmRSS:"] * 1024 // 10**6}


if __name__ == "__main__":
    main()
