"""Settings: one place for the defaults, one clear sentence for a bad key or value."""

import json
import tomllib
from pathlib import Path

import pytest
from flwr.common.config import fuse_dicts

from common.config import Config, ConfigError, document, former
from common.config.fields import key
from common.config.overrides import read_overrides
from common.config.run import KEYS, LARGEST_SEED, UNSET, tell_contradictions
from common.config.synthesis import AUTHORS, PRESETS
from common.storage.atomic import write_json
from fedlmg_server.flower.bundle import write_app
from fedlmg_server.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def flower_config() -> dict[str, object]:
    """What Flower merges into every run config: the app's keys and values in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def test_pyproject_lists_every_key_as_not_set():
    assert flower_config() == dict.fromkeys(KEYS, UNSET)


def test_what_is_submitted_lists_every_key_as_not_set(tmp_path: Path):
    app = write_app(tmp_path)

    listed = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]

    assert listed == dict.fromkeys(KEYS, UNSET)


def test_a_config_file_that_windows_powershell_wrote_is_read(tmp_path: Path):
    """It begins with a byte order mark."""
    file = tmp_path / "run.toml"
    file.write_bytes("\ufeffseed = 7\n".encode())

    assert read_overrides(file, []) == {"seed": 7}


def test_flowers_override_of_one_key_leaves_the_others_at_their_defaults():
    fused = fuse_dicts(flower_config(), {"preset": "fast", "num-inference-steps": 8})

    config = Config.from_run_config(fused)

    assert config == Config.from_run_config({"preset": "fast", "num-inference-steps": 8})
    assert (config.synthesis.num_inference_steps, config.synthesis.guided_until) == (8, 0.38)


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"dataset": "emoji", "images-per-class": 16}, "images-per-class", 16),
        ({"preset": "authors", "guidance-strength": 0.3}, "guidance-strength", 0.3),
        ({"dataset": "mixed", "num-clients": 4}, "num-clients", 4),
    ],
)
def test_key_that_is_set_to_its_default_wins_over_preset_and_data_set(given: dict, key: str, value: object):
    assert Config.from_run_config(given).to_run_config()[key] == value


def test_preset_fills_the_keys_that_are_not_set():
    config = Config.from_run_config({"preset": "authors", "num-inference-steps": 20})

    assert (config.synthesis.sampler, config.synthesis.num_inference_steps) == ("ddpm", 20)


def test_preset_of_the_authors_alone_has_their_method():
    assert {preset: Config.from_run_config({"preset": preset}).synthesis.method == AUTHORS for preset in PRESETS} == {
        "default": False,
        "fast": False,
        "authors": True,
        "photos": False,
    }


def test_preset_for_photographs_trains_on_large_images_from_imagenet_weights():
    config = Config.from_run_config({"preset": "photos"})

    assert (config.training.image_size, config.training.initialisation) == (224, "imagenet")
    assert (config.distillation.student_architecture, config.distillation.student_initialisation) == (
        "resnet50",
        "imagenet",
    )
    assert (config.general.looks, config.synthesis.images_per_class) == ("photos", 30)
    assert config.distillation.aggregation == "specific-teacher"


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_names_keys_alone(preset: str):
    assert {key(name) for name in PRESETS[preset]} <= set(KEYS)


def test_key_that_contradicts_its_preset_is_told():
    given = {"preset": "photos", "image-size": 128, "looks": "photos", "seed": 3}

    told = tell_contradictions(given)

    assert told == "'image-size' is 128, as you set it, and not 224, as preset 'photos' has it"


def test_preset_that_is_not_contradicted_needs_no_word():
    assert tell_contradictions({"preset": "photos", "seed": 3}) == ""


@pytest.mark.parametrize(
    "given", [{}, {"preset": "fast"}, {"preset": "authors"}, {"preset": "photos"}, {"dataset": "mixed"}], ids=str
)
def test_config_that_is_read_back_is_the_same(given: dict):
    config = Config.from_run_config(given)

    assert Config.from_run_config(config.to_run_config()) == config


def test_options_of_the_command_are_no_settings():
    config = Config.from_run_config({"compare": True, "workspace": "/somewhere", "trackers": "tensorboard"})

    assert config.settings() == Config().settings()


def test_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown config key 'local-epoch'; did you mean 'local-epochs'"):
        Config.from_run_config({"local-epoch": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("local-epochs", "3"),
        ("local-epochs", 0),
        ("local-epochs", True),
        ("compare", 1),
        ("aggregation", "fedavg"),
        ("guided-until", 2.0),
        ("min-clients", 9),
        ("deadline-seconds", float("inf")),
        ("deadline-seconds", -5.0),
        ("student-learning-rate", float("nan")),
        ("student-learning-rate", -1.0),
        ("local-learning-rate", 0.0),
        ("temperature", 0.0),
        ("temperature", 1e-9),
        ("noise-editing-steps", -3),
        ("guidance-strength", -0.1),
        ("guidance-scale", -5.0),
        ("image-size", 1),
        ("architectures", ""),
        ("architectures", "small_mlp,"),
        ("student-architecture", ""),
        ("diffusion-model", ""),
        ("statistics", "class/3"),
        ("dataset", ["emoji"]),
        ("seed", LARGEST_SEED + 1),
        ("seed", -1),
        ("client-sizes", "\u00b2"),
        ("dp-epsilon", -1.0),
        ("max-upload-megabytes", 0.0),
        ("local-batch-size", 1),
        ("student-batch-size", 1),
    ],
)
def test_impossible_value_names_the_key(key: str, value: object):
    with pytest.raises(ConfigError, match=f"^config key '{key}' must be .*, got |^config key '{key}' must hold"):
        Config.from_run_config({key: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": float("nan")}, "config key 'seed' must be a whole number from 0 to 4294967295, got nan"),
        ({"temperature": float("nan")}, "config key 'temperature' must be a finite number, got nan"),
        ({"min-confidence": 1.5}, "config key 'min-confidence' must be a number from 0 to 1, got 1.5"),
        ({"dp-delta": 1.0}, "config key 'dp-delta' must be a number of at least 0 and below 1, got 1.0"),
        ({"preset": "slow"}, "config key 'preset' must be 'default', 'fast', 'authors' or 'photos', got 'slow'"),
        ({"min-clients": 9}, "config key 'min-clients' must be at most 'num-clients', which is 4, got 9"),
        ({"federation": "digits"}, "config key 'federation' is now called 'dataset'"),
        ({"min-distance": 0.0}, "config key 'min-distance' is gone: no measurement spoke for it"),
        ({"denoiser-passes": 2}, "config key 'denoiser-passes' is gone: it belongs to preset 'authors'"),
        ({"preset": "exact"}, "preset 'exact' is now called 'authors'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_error_is_one_sentence_of_ours(given: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        Config.from_run_config(given)

    assert str(caught.value) == message


def test_no_former_key_is_a_key_today():
    assert former.KEYS.keys() & set(KEYS) == set()


def test_every_key_is_in_one_table():
    assert len(KEYS) == len(set(KEYS))


def test_page_of_settings_is_up_to_date():
    assert (ROOT / document.PAGE).read_text() == document.render(), "run: python -m common.config.document"


def test_every_key_has_a_meaning():
    rows = [line.split(" | ") for line in document.render().splitlines() if line.startswith("| `")]

    assert {row[0].strip("| `") for row in rows} >= set(KEYS)
    assert [row[0] for row in rows if len(row[3].strip(" |")) < 10] == []


def test_workspace_of_another_config_is_refused_with_the_difference(tmp_path: Path):
    workspace = Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {})
    write_json(workspace.upload("a") / "manifest.json", {})

    with pytest.raises(ConfigError, match=r"local-epochs: \d+ -> 3"):
        Workspace.open(Config.from_run_config({"workspace": str(tmp_path), "local-epochs": 3}), {})


OLD_RUN = """{"seed": 0, "config": {"seed": 0, "federation": "digits", "num-clients": 4, "images-per-class": 16,
"statistics-by-class": true, "statistics-looks": 1, "upload-dtype": "float16", "guidance-start": 0.0,
"guidance-stop": 0.7, "max-redraws": 0, "preset": "exact", "compare": true}, "versions": {"fedlmg": "0.1.0"}}"""
OF_OLD_KEYS = '{"schema": 2, "seed": 0, "config": {"federation": "digits"}, "options": {}, "versions": {}}'
OF_THE_FUTURE = '{"schema": 99, "seed": 0, "config": {}, "options": {}, "versions": {}}'


@pytest.mark.parametrize("content", [OLD_RUN, OF_OLD_KEYS, OF_THE_FUTURE], ids=["old", "old keys", "future"])
def test_workspace_of_another_version_is_refused(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)

    for opened in (
        lambda: Workspace.existing(tmp_path),
        lambda: Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {}),
    ):
        with pytest.raises(ConfigError, match=r"was made by another version of FedLMG.* or another workspace"):
            opened()
    assert (tmp_path / "run.json").read_text() == content


def test_newest_options_of_the_command_are_kept_for_later_ones(tmp_path: Path):
    keys = {"workspace": str(tmp_path)}
    Workspace.open(Config.from_run_config(keys), {})

    Workspace.open(Config.from_run_config(keys | {"compare": True}), {})

    assert Workspace.existing(tmp_path)[1] == Config.from_run_config(keys | {"compare": True})


@pytest.mark.parametrize("content", ['{"config": {"se', "[]", "{}", '{"config": 3}'])
def test_workspace_whose_record_is_broken_is_told(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(ConfigError, match=r"run\.json is no record of a run"):
        Workspace.existing(tmp_path)
    with pytest.raises(ConfigError, match=r"run\.json is no record of a run"):
        Workspace.open(Config.from_run_config({"workspace": str(tmp_path)}), {})


def test_workspace_made_before_a_key_existed_goes_on_with_its_default(tmp_path: Path):
    config = Config.from_run_config({"workspace": str(tmp_path)})
    Workspace.open(config, {})
    made = json.loads((tmp_path / "run.json").read_text())
    del made["config"]["dp-epsilon"]
    (tmp_path / "run.json").write_text(json.dumps(made))

    workspace = Workspace.open(config, {})
    write_json(workspace.upload("a") / "manifest.json", {})

    with pytest.raises(ConfigError, match=r"dp-epsilon: 0\.0 -> 8\.0"):
        Workspace.open(Config.from_run_config({"workspace": str(tmp_path), "dp-epsilon": 8.0}), {})


def test_workspace_that_another_run_holds_is_refused(tmp_path: Path):
    workspace = Workspace(tmp_path)

    with workspace.lock(), pytest.raises(ConfigError, match="another run is using"), workspace.lock():
        pass


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 300, "Klinik Süd"])
def test_client_name_becomes_a_harmless_folder_inside_uploads(tmp_path: Path, name: str):
    workspace = Workspace(tmp_path)

    folder = workspace.upload(name)

    assert folder.resolve().parent == workspace.uploads.resolve()
