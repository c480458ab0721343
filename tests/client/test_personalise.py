"""A personal model: which candidate it is, how it is fine-tuned, and what is not forgotten."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.clients.data import ClientData
from common.config import Config
from common.datasets.labeled_images import LabeledView
from common.models import architectures
from common.start import Start
from common.storage.images import ImageView
from common.vision.metrics import predict
from common.vision.preprocessing import PreprocessSpec
from fedlmg_client import fine_tuning, personal_training, personalise, probe
from fedlmg_client.models import Model
from fedlmg_client.personalise import Candidate, Personalised
from tests.client.tiny_start import CLASSES, make_start

CONFIG = Config.from_run_config({"image-size": 16, "local-epochs": 4, "local-batch-size": 8})


class CutOffError(Exception):
    """Stands for a power cut."""


def colours(count: int, classes: int = 2) -> LabeledView:
    """Images of class 0 are dark and those of class 1 bright."""
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 40, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return LabeledView(ImageView.of(noise + (200 * labels[:, None, None, None]).to(torch.uint8)), labels)


@pytest.fixture
def data() -> ClientData:
    return ClientData("tiny", ["cat", "dog"], colours(24), colours(60), colours(12), "fingerprint", "folder")


def model_of(start: Start, architecture: str = "small_resnet") -> Model:
    return Model.of_start(replace(start, models={architecture: start.models[architecture]}))


def run(
    data: ClientData, folder: Path, base: Model | None = None, config: Config = CONFIG, **more: object
) -> Personalised:
    start = make_start("small_resnet")
    given: dict = {"own": None, "start": start, "checkpoint": folder / "checkpoint", "report": lambda *_: None} | more
    return personalise.personalise(base or model_of(start), given.pop("own"), data, given.pop("start"), config, **given)


def fine_tuned(alpha: float, validation: float, general: float | None = 0.8, loss: float | None = None) -> Candidate:
    """Its loss is the smaller the more it reads right, unless it is given."""
    return Candidate("fine-tuned", alpha, validation, general, 1 - validation if loss is None else loss)


UNCHANGED = Candidate("unchanged", 0.0, 0.7, 0.8, 0.3)
OWN = Candidate("own", 0.0, 0.7, 0.3, 0.3)


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([fine_tuned(0.5, 0.9), fine_tuned(1.0, 0.8)], 0),
        ([fine_tuned(0.5, 0.9, loss=0.3), fine_tuned(0.25, 0.9, loss=0.2), fine_tuned(1.0, 0.9, loss=0.4)], 1),
        ([fine_tuned(0.5, 0.69, loss=0.1), fine_tuned(0.25, 0.7, loss=0.2)], 1),
        ([fine_tuned(0.5, 0.9), fine_tuned(1.0, 0.9), fine_tuned(0.25, 0.9)], 1),
        ([fine_tuned(0.5, 0.9, 0.751), fine_tuned(1.0, 0.95, 0.749)], 0),
        ([fine_tuned(0.25, 0.7)], 1),
        ([fine_tuned(1.0, 0.9, None)], 0),
        ([fine_tuned(0.5, 0.9), replace(OWN, validation=0.95)], 0),
        ([fine_tuned(0.5, 0.9), replace(OWN, validation=0.97)], 1),
    ],
    ids=[
        "best",
        "smallest loss",
        "validation never falls",
        "of equals, changes most",
        "floor",
        "unchanged",
        "no general images",
        "by chance",
        "clearly",
    ],
)
def test_the_best_on_validation_images_that_forgets_little_is_chosen(others: list[Candidate], best: int):
    candidates = [*others, UNCHANGED]

    assert personalise.choose(candidates, 100) is candidates[best]


@pytest.mark.parametrize("seed", range(20))
def test_validation_never_falls(seed: int):
    drawn = torch.rand(6, 2, generator=torch.Generator().manual_seed(seed)).tolist()
    averages = [fine_tuned(alpha, *pair) for alpha, pair in zip(personalise.ALPHAS, drawn[2:], strict=True)]
    unchanged, own = Candidate("unchanged", 0.0, *drawn[0], 0.5), Candidate("own", 0.0, *drawn[1], 0.5)

    chosen = personalise.choose([unchanged, own, *averages], 10_000)

    assert chosen.validation >= max(unchanged.validation, own.validation - 0.01)


def test_many_validation_images_tell_the_own_upload_sooner_from_chance():
    candidates = [replace(OWN, validation=0.93), fine_tuned(0.5, 0.9), UNCHANGED]

    chosen = [personalise.choose(candidates, count).kind for count in (100, 1000)]

    assert chosen == ["fine-tuned", "own"]


def test_weights_and_running_moments_are_averaged_and_counters_are_not():
    torch.manual_seed(0)
    before, after = (architectures.build("small_resnet", 2, 16).state_dict() for _ in range(2))
    after["stem.1.running_var"] = 3 * before["stem.1.running_var"]
    after["stem.1.num_batches_tracked"] = torch.tensor(5)

    mixed = personalise.interpolate(before, after, 0.25)

    assert torch.allclose(mixed["head.weight"], 0.75 * before["head.weight"] + 0.25 * after["head.weight"])
    assert torch.allclose(mixed["stem.1.running_var"], torch.full((24,), 1.5))
    assert mixed["stem.1.num_batches_tracked"] == 5


@pytest.mark.parametrize("architecture", ["small_resnet", "small_mlp"])
@pytest.mark.parametrize("num_replayed", [0, 8])
def test_it_learns_the_clients_images(data: ClientData, tmp_path: Path, architecture: str, num_replayed: int):
    start = make_start(architecture, num_replayed=num_replayed)

    made = run(data, tmp_path, model_of(start, architecture), start=start)

    validation = {each.alpha: each.validation for each in made.candidates}
    assert validation[1.0] > validation[0.0]
    assert made.model.class_names == CLASSES


def test_without_anything_from_the_server_but_the_model_it_is_made_all_the_same(data: ClientData, tmp_path: Path):
    made = run(data, tmp_path, start=None)

    assert [each.general for each in made.candidates] == [None] * 5


def test_the_own_upload_is_a_candidate_by_the_names_of_its_classes(data: ClientData, tmp_path: Path):
    """It is right about every image, and has other classes in another order."""
    torch.manual_seed(0)
    net = architectures.build("small_mlp", 3, 16)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    spec, dog_first = PreprocessSpec(16), 1 - data.validation.labels
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(net(spec(data.validation.images.read().float() / 255)), dog_first)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    own = Model("small_mlp", ["DOG", "cat", "emu"], spec, net.state_dict())
    never = replace(CONFIG, training=replace(CONFIG.training, local_epochs=1))

    made = run(replace(data, train=colours(2)), tmp_path, own=own, config=never)

    assert made.chosen == Candidate("own", 0.0, 1.0, made.chosen.general, made.chosen.loss)
    assert made.model is own


@pytest.mark.parametrize("count", [0, 49])
def test_with_too_few_validation_images_it_changes_as_far_as_it_forgets_little(
    data: ClientData, tmp_path: Path, count: int
):
    made = run(replace(data, validation=colours(count)), tmp_path)

    kept = [each.alpha for each in made.candidates if each.general >= made.candidates[0].general - 0.05]
    assert (made.chosen.validation, made.chosen.alpha) == (None, max(kept))
    assert "too few validation images to choose by, fewer than 50" in made.describe()


def test_a_model_that_knows_none_of_the_classes_stays_as_it_came(data: ClientData, tmp_path: Path):
    made = run(replace(data, class_names=["fox", "emu"]), tmp_path)

    assert made.chosen.kind == "unchanged"
    assert made.describe() == "it stays as it came, for it knows no class of your training images"


def test_a_model_that_would_forget_too_much_says_so_where_nothing_was_validated():
    forgetful = [Candidate("fine-tuned", alpha, None, 0.74) for alpha in personalise.ALPHAS]
    candidates = [Candidate("unchanged", 0.0, None, 0.8), *forgetful]
    made = Personalised(model_of(make_start("small_resnet")), personalise.choose(candidates, 49), candidates)

    said = made.describe()

    assert "it stays as it came, for fine-tuned on your images it forgets too much" in said


def test_images_of_a_class_that_the_model_lacks_are_left_out(data: ClientData, tmp_path: Path):
    made = run(replace(data, class_names=["fox", "dog"]), tmp_path)

    assert max(each.validation for each in made.candidates) == 0.5


def test_cut_off_after_an_epoch_it_ends_with_the_same_weights(data: ClientData, tmp_path: Path):
    whole = run(data, tmp_path / "whole")
    with pytest.raises(CutOffError):
        run(data, tmp_path / "cut", report=_cut_off)
    left = []

    resumed = run(data, tmp_path / "cut", report=lambda epoch, *_: left.append(epoch))

    assert left == [2, 3, 4]
    assert resumed.chosen == whole.chosen
    assert all(torch.equal(resumed.model.arrays[name], each) for name, each in whole.model.arrays.items())


def _cut_off(*_: object) -> None:
    raise CutOffError


def test_a_rare_class_is_seen_as_often_as_a_common_one(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, add = [], fine_tuning.add_replay

    def record(inputs: torch.Tensor, labels: torch.Tensor, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(labels)
        return add(inputs, labels, *rest)

    monkeypatch.setattr(fine_tuning, "add_replay", record)
    common = LabeledView(data.train.images, torch.tensor([1] + [0] * 23))

    run(
        replace(data, train=common),
        tmp_path,
        config=replace(CONFIG, training=replace(CONFIG.training, local_epochs=8)),
    )

    drawn = torch.cat(seen)
    assert len(drawn) == 8 * 24
    assert (drawn == CLASSES.index("dog")).double().mean().item() == pytest.approx(0.5, abs=0.15)


def test_replayed_images_are_learned_under_the_models_own_probabilities():
    start = make_start("small_resnet")
    net = start.build("small_resnet").eval()

    replay = personal_training.make_replay(net, start.preprocess, start)

    assert torch.equal(replay.targets, predict(net, start.preprocess, start.replay.images))


def test_the_loss_on_replayed_images_is_least_where_nothing_changed():
    start = make_start("small_resnet")
    net, other = start.build("small_resnet").eval(), start.build("small_resnet").eval()
    torch.nn.init.normal_(other.head.weight, std=2)
    replay = replace(personal_training.make_replay(net, start.preprocess, start), looks="none")
    nothing = torch.zeros(0, 3, 16, 16), torch.zeros(0, dtype=torch.int64)

    inputs, targets = fine_tuning.add_replay(*nothing, replay, start.preprocess, torch.Generator().manual_seed(0))

    losses = [torch.nn.functional.cross_entropy(each(inputs), targets).item() for each in (net, other)]
    assert losses[0] < losses[1]


def test_a_slow_machine_takes_as_many_batches_as_it_can(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(probe, "measure_step_seconds", lambda *_: 1e9)
    told = []

    run(data, tmp_path, report=lambda epoch, epochs, left: told.append((epoch, epochs, left)))

    assert told == [(1, 1, 0.0)]


@pytest.mark.parametrize(
    "change", [{"fingerprint": "other"}, {"class_names": ["cat", "fox"]}], ids=["images", "classes"]
)
def test_other_data_make_another_model(data: ClientData, change: dict):
    start = make_start("small_resnet")
    digests = [
        personalise.digest(model_of(start), None, each, start, CONFIG) for each in (data, replace(data, **change))
    ]

    assert digests[0] != digests[1]


def test_another_model_upload_or_replay_makes_another_model(data: ClientData):
    start, other = make_start("small_resnet"), make_start("small_resnet", seed=1)
    base, own = model_of(start), model_of(other)
    given = [(base, None, start), (own, None, start), (base, own, start), (base, None, other), (base, None, None)]

    digests = {personalise.digest(model, upload, data, replayed, CONFIG) for model, upload, replayed in given}

    assert len(digests) == 5


def test_weights_that_are_not_finite_are_no_personal_model(
    data: ClientData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fine_tuning, "SGD_LEARNING_RATE", 1e30)

    with pytest.raises(ValueError, match="weights that are not finite"):
        run(data, tmp_path)
