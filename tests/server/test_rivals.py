"""Rivals on cases whose answer is known: two clients that see dark images of class 0 and bright ones of class 1."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from common import pretrained
from common.config import Config
from common.datasets.labeled_images import LabeledImages
from common.upload import Upload
from common.workspace import Workspace
from fedlmg_server.baselines import (
    co_boosting,
    data_free,
    dense,
    fedavg,
    feddf,
    feddyn,
    fedprox,
    linear_probe,
    own_model,
    rivals,
    rounds,
    weighted_ensemble,
)
from fedlmg_server.baselines.federation import Cost, DoesNotApply, Federation, num_bytes
from fedlmg_server.distillation import trainer
from fedlmg_server.distillation.trainer import TrainingSet
from tests.conftest import make_upload

SETTINGS = {
    "images-per-class": 16,
    "student-batch-size": 16,
    "student-epochs": 12,
    "student-learning-rate": 0.05,
    "local-batch-size": 16,
}
NAMES = ["dark", "bright"]


def two_colors(count: int = 64) -> LabeledImages:
    labels = torch.arange(count) % 2
    images = torch.randint(0, 100, (count, 3, 32, 32)) + 150 * labels[:, None, None, None]
    return LabeledImages(images.to(torch.uint8), labels)


def trained(client: str, seed: int = 0) -> Upload:
    """A client that tells the two colours apart; `class_names` in the order of the labels."""
    config, data = Config.from_run_config(SETTINGS), two_colors()
    upload = make_upload(client, NAMES, seed=seed)
    model = upload.classifier().requires_grad_(True)
    trainer.train(model, TrainingSet(data.images, data.labels), upload.preprocess, config.distillation, seed, 24)
    return replace(upload, arrays=model.state_dict())


def federation(uploads: list[Upload], folder: Path = Path("nowhere"), **settings: object) -> Federation:
    config = Config.from_run_config(SETTINGS | {key.replace("_", "-"): value for key, value in settings.items()})
    sets = [{upload.client: shown(upload) for upload in uploads} for _ in ("train", "test")]
    return Federation(config, Workspace(folder), uploads, torch.device("cpu"), *sets)


def shown(upload: Upload) -> LabeledImages:
    """Labels are in the union of the classes, which is sorted: bright comes first."""
    data = two_colors()
    return LabeledImages(data.images, 1 - data.labels)


@pytest.fixture(scope="module")
def uploads() -> list[Upload]:
    return [trained("a"), trained("b", seed=1)]


def images_counted(upload: Upload, count: int) -> Upload:
    return replace(
        upload, manifest=upload.manifest | {"training": upload.manifest["training"] | {"num_examples": count}}
    )


def test_average_counts_a_client_by_its_images():
    one, three = images_counted(make_upload("a", NAMES), 1), images_counted(make_upload("b", NAMES, seed=1), 3)

    model = fedavg.average(federation([one, three]))

    stem = next(iter(one.arrays))
    torch.testing.assert_close(model.state_dict()[stem], 0.25 * one.arrays[stem] + 0.75 * three.arrays[stem])


def test_average_of_a_classs_row_is_of_the_clients_that_know_it():
    first, second = make_upload("a", ["bright", "dark"]), make_upload("b", ["dark", "grey"], seed=1)

    weight = fedavg.average(federation([first, second])).head.weight

    torch.testing.assert_close(weight[0], first.arrays["head.weight"][0])
    torch.testing.assert_close(weight[1], (first.arrays["head.weight"][1] + second.arrays["head.weight"][0]) / 2)
    torch.testing.assert_close(weight[2], second.arrays["head.weight"][1])


@pytest.mark.parametrize("rival", [fedavg.one_shot, fedavg.many_rounds, fedprox.many_rounds, feddyn.many_rounds])
def test_averages_do_not_apply_to_unlike_architectures(rival):
    unlike = [make_upload("a", NAMES), make_upload("b", NAMES, "small_mlp")]

    with pytest.raises(DoesNotApply, match="small_mlp, small_resnet"):
        rival(federation(unlike))


@pytest.mark.parametrize("rival", [fedavg.many_rounds, fedprox.many_rounds, feddyn.many_rounds])
def test_rounds_learn_what_every_client_shows(rival, uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rounds, "NUM_ROUNDS", 4)
    monkeypatch.setattr(rounds.run, "__defaults__", (4,))

    outcome = rival(federation(uploads))

    assert outcome.per_client == {"a": 1.0, "b": 1.0}
    assert (outcome.cost.rounds, outcome.cost.epochs) == (4, 4)


def test_rounds_count_a_model_each_way_for_every_client_and_round(uploads):
    asked = federation(uploads)
    size = sum(len(array.data) for array in ArrayRecord(rounds.initial(asked).state_dict()).values())

    cost = rounds.run(asked, rounds_strategy(asked), num_rounds=2).cost

    # After the last round everybody gets the average.
    assert cost.upload_bytes == 4 * size
    assert cost.download_bytes == 4 * size + asked.sent_back(rounds.initial(asked))
    assert cost.client_seconds > 0
    assert cost.server_seconds > 0


def rounds_strategy(asked: Federation):
    return fedavg.FedAvg(**rounds.everyone(asked))


def test_proximal_term_holds_a_client_at_the_servers_model(uploads):
    def moved(mu: float) -> float:
        asked = federation(uploads, local_learning_rate=0.01)
        model = rounds.initial(asked)
        grid = rounds.VirtualClients(asked, model, rounds.Cost(), num_rounds=1)
        before = model.head.weight.detach().clone()
        grid._train(1, shown(uploads[0]), {"server-round": 1, "proximal-mu": mu})
        return (model.head.weight - before).norm().item()

    assert moved(50.0) < 0.5 * moved(0.0)


def test_feddyn_moves_the_mean_by_what_clients_moved_before():
    strategy = feddyn.FedDyn(0.1, {"w"}, fraction_evaluate=0.0)
    strategy.before = {"w": np.zeros(1)}
    content = RecordDict({"arrays": ArrayRecord({"w": torch.ones(1)}), "metrics": MetricRecord({"num-examples": 1})})
    with rounds._as_a_task():
        reply = Message(content, reply_to=Message(RecordDict(), 1, "train"))

    first, _ = strategy.aggregate_train(1, [reply])
    strategy.before = {"w": np.zeros(1)}
    second, _ = strategy.aggregate_train(2, [reply])

    # h = -0.1 x (1 - 0), so the model is 1 + 0.1 / 0.1; then as much again.
    assert first["w"].numpy() == pytest.approx(2.0)
    assert second["w"].numpy() == pytest.approx(3.0)


def train_in_round(grid: rounds.VirtualClients, number: int, data: LabeledImages) -> dict[str, torch.Tensor]:
    """How far FedDyn's client 1 moves each parameter; alpha is 0.1."""
    before = {name: parameter.detach().clone() for name, parameter in grid.model.named_parameters()}
    grid._train(1, data, {"server-round": number, "feddyn-alpha": 0.1})
    return {name: parameter.detach() - before[name] for name, parameter in grid.model.named_parameters()}


def test_feddyns_clients_remember_how_far_they_moved(uploads):
    asked = federation(uploads, local_learning_rate=0.01)
    grid = rounds.VirtualClients(asked, rounds.initial(asked), rounds.Cost(), num_rounds=2)

    first, second = (train_in_round(grid, number, shown(uploads[0])) for number in (1, 2))

    for name, remembered in grid.gradients[1].items():
        torch.testing.assert_close(remembered, -0.1 * (first[name] + second[name]))


def test_feddyns_clients_go_where_their_linear_term_points(uploads):
    asked = federation(uploads, local_learning_rate=0.01)
    grid = rounds.VirtualClients(asked, rounds.initial(asked), rounds.Cost(), num_rounds=1)
    grid.gradients[1] = {name: torch.zeros_like(value) for name, value in grid.model.named_parameters()}
    grid.gradients[1]["head.bias"] += 1000.0

    moved = train_in_round(grid, 1, shown(uploads[0]))

    assert (moved["head.bias"] > 1.0).all()


@pytest.mark.parametrize(
    ("rival", "key", "value"),
    [(fedprox, "proximal-mu", fedprox.MU), (feddyn, "feddyn-alpha", feddyn.ALPHA)],
    ids=["fedprox", "feddyn"],
)
def test_every_client_is_told_the_weight_of_its_term(rival, key, value, uploads, monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr(rounds.VirtualClients, "_train", lambda self, node, data, config: told.append(config[key]))
    monkeypatch.setattr(rounds.run, "__defaults__", (1,))

    rival.many_rounds(federation(uploads))

    assert told == [value, value]


def cost_in_run(method: str, asked: Federation) -> Cost:
    results = {"methods": {method: {"per_client": {"a": 0.5, "b": 0.5}}}, "synthesis": {"num_images": 32}}
    results["stages"] = {"distillation": 5.0, "synthesis": 7.0, "prompts-only": 3.0}
    asked.workspace.report.mkdir(parents=True)
    (asked.workspace.report / "results.json").write_text(json.dumps(results))
    return rivals.measure(method, asked).cost


def test_what_methods_of_a_run_cost(uploads, tmp_path: Path):
    uploads = [replace(each, manifest=deepcopy(each.manifest)) for each in uploads]
    for upload in uploads:
        upload.manifest["training"] |= {"history": [{}] * 20, "seconds": 4.0}
    sent = sum(upload.num_bytes for upload in uploads)
    returned = 2 * num_bytes(federation(uploads).student())
    pixels = 2 * 64 * 3 * 32 * 32
    expected = {
        "local": Cost(0, 20, 0, 0, 8.0, 0.0, 0),
        "ensemble": Cost(1, 20, sent, sent, 8.0, 0.0, 0),
        "prompts-only-fine-tuning": Cost(1, 0, 0, returned, 0.0, 8.0, 32),
        "prompts-only-multi-teacher": Cost(1, 20, sent, returned, 8.0, 8.0, 32),
        "fedlmg-fine-tuning": Cost(1, 20, sent, returned, 8.0, 12.0, 32),
        "fedlmg-specific-teacher": Cost(1, 20, sent, returned, 8.0, 12.0, 32),
        "ceiling": Cost(1, 0, pixels, returned, 0.0, 5.0, 128),
    }

    found = {method: cost_in_run(method, federation(uploads, tmp_path / method)) for method in expected}

    assert found == expected


def test_own_model_is_asked_of_its_own_images_alone(uploads):
    wrong = replace(uploads[1], manifest=uploads[1].manifest | {"class_names": NAMES[::-1]})

    outcome = own_model.own_model(federation([uploads[0], wrong]))

    assert outcome.per_client == {"a": 1.0, "b": 0.0}
    assert (outcome.cost.rounds, outcome.cost.upload_bytes, outcome.cost.download_bytes) == (0, 0, 0)


def test_feddf_takes_public_images_of_every_class_where_it_takes_few(uploads):
    asked = federation(uploads)
    count = asked.num_updates * SETTINGS["student-batch-size"]
    by_class = (torch.arange(2 * count) >= count).to(torch.uint8)[:, None, None, None]

    taken = feddf.public_images(replace(asked, public=by_class))

    assert len(taken) == count
    assert 0.4 < taken.float().mean() < 0.6


def test_feddf_starts_from_the_average_of_nets_like_the_student_s(uploads):
    unlike = [make_upload("a", NAMES, "small_mlp")]

    alike, other = (feddf._start(federation(each)).state_dict() for each in (uploads, unlike))

    average, student = fedavg.average(federation(uploads)), federation(unlike).student()
    assert all(torch.equal(value, alike[name]) for name, value in average.state_dict().items())
    assert all(torch.equal(value, other[name]) for name, value in student.state_dict().items())


def test_feddf_learns_from_teachers_and_images_without_labels(uploads):
    asked = replace(federation(uploads), public=two_colors(128).images)

    outcome = feddf.feddf(asked)

    assert outcome.per_client == {"a": 1.0, "b": 1.0}
    assert outcome.cost.num_images == 128


def test_feddf_asks_for_public_images_where_clients_have_folders(uploads):
    with pytest.raises(DoesNotApply, match="names no `public` images"):
        feddf.feddf(federation(uploads, folders="/a;/b"))


def test_clients_below_chance_have_no_vote(uploads, tmp_path: Path):
    wrong = replace(trained("c"), manifest=trained("c").manifest | {"class_names": NAMES[::-1]})
    asked = federation([*uploads, wrong], tmp_path)
    verdicts = {name: {"quality": quality} for name, quality in (("a", 0.1), ("b", 0.1), ("c", None))}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "quality.json").write_text(json.dumps(verdicts))
    asked.workspace.log("stage", name="synthesis", state="finished", seconds=7.0)

    outcome = weighted_ensemble.by_quality(asked)

    assert set(outcome.per_client.values()) == {1.0}
    # It is judged by the images that were drawn.
    assert outcome.cost.server_seconds == 7.0


def test_linear_probe_trains_the_last_layer_alone(uploads, monkeypatch: pytest.MonkeyPatch):
    asked, models = federation(uploads), []
    monkeypatch.setattr(Federation, "measure", lambda self, model: models.append(model) or {})

    linear_probe.linear_probe(asked)

    before, after = dict(asked.student().named_parameters()), dict(models[0].named_parameters())
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {f"{pretrained.head(models[0])}.weight", f"{pretrained.head(models[0])}.bias"}


def test_ensemble_reads_each_class_as_the_clients_that_know_it():
    first, second = make_upload("a", ["bright", "dark"]), make_upload("b", ["dark", "grey"], seed=1)
    images = torch.rand(5, 3, 32, 32)

    logits = data_free.Ensemble(federation([first, second])).logits(images)

    with torch.no_grad():
        a, b = (upload.classifier()(upload.preprocess(images)) for upload in (first, second))
    torch.testing.assert_close(logits, torch.stack([a[:, 0], (a[:, 1] + b[:, 0]) / 2, b[:, 1]], 1))


def test_generated_images_come_to_look_as_asked(uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_free, "BATCH_SIZE", 16)
    asked = federation(uploads)
    ensemble, generator = data_free.Ensemble(asked), torch.Generator().manual_seed(0)

    def loss(labels, logits, distance, student_logits):
        return F.cross_entropy(logits, labels)

    images, labels = data_free.generate(asked, ensemble, asked.student(), loss, generator)

    assert (ensemble.logits(images).argmax(1) == labels).float().mean() > 0.9
    assert 0 <= images.min() <= images.max() <= 1


def test_dense_pushes_apart_only_where_ensemble_and_student_disagree():
    logits, labels = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
    agrees, disagrees = logits / 2, -logits

    losses = [dense.generator_loss(labels, logits, torch.tensor(0.5), student) for student in (agrees, disagrees)]

    plain = F.cross_entropy(logits, labels) + 0.5
    apart = data_free.divergence(logits, disagrees).mean()
    torch.testing.assert_close(torch.stack(losses), torch.stack([plain, plain - 0.5 * apart]))


def test_hard_images_count_by_how_unsure_the_ensemble_is():
    logits, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([0])

    loss = co_boosting.generator_loss(labels, logits, torch.tensor(9.0), logits)

    assert loss.item() == pytest.approx(0.5 * np.log(2))


def test_a_client_that_reads_images_wrongly_loses_weight(uploads):
    wrong = replace(uploads[0], manifest=uploads[0].manifest | {"client": "c", "class_names": NAMES[::-1]})
    asked = federation([*uploads, wrong])
    ensemble, data = data_free.Ensemble(asked), shown(wrong)

    co_boosting.reweight(ensemble, data.images.float() / 255, data.labels, step=0.1)

    torch.testing.assert_close(ensemble.weights[2], torch.tensor(1 / 3 - 0.1))


def test_pushed_images_move_by_eight_grey_levels_at_most(uploads):
    ensemble = data_free.Ensemble(federation(uploads))
    images = torch.full((2, 3, 32, 32), 0.5)

    moved = co_boosting.push(ensemble, images, torch.Generator().manual_seed(0)) - images

    assert moved.abs().max().item() == pytest.approx(8 / 255, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rival", [dense.dense, co_boosting.co_boosting])
def test_data_free_students_take_everyones_updates_and_do_not_guess(rival, uploads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_free, "NUM_EPOCHS", 3)
    monkeypatch.setattr(data_free, "BATCH_SIZE", 16)

    outcome = rival(federation(uploads))

    assert min(outcome.per_client.values()) > 0.8
    assert outcome.cost.num_images == 48
    assert outcome.cost.rounds == 1
