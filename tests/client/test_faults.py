"""Faults of virtual clients do what their names say."""

from dataclasses import replace

import pytest
import torch

from common.clients.data import load_client_data
from common.config import Config
from common.config.run import LARGEST_SEED
from common.manifest import StudentCopy
from common.upload import weights_digest
from fedlmg_client import faults, plan
from fedlmg_server.collection.upload_checks import UploadError, check_upload
from tests.conftest import make_upload
from tests.manifests import saying

CONFIG = Config.from_run_config({"faults": "0:random-labels, 1:nan-weights, 2:few-epochs"})


@pytest.mark.parametrize(("index", "fault"), [(0, "random-labels"), (1, "nan-weights"), (2, "few-epochs"), (3, "")])
def test_fault_is_that_of_the_clients_index(index: int, fault: str):
    assert faults.find_fault(load_client_data({"partition-id": index}, CONFIG), CONFIG) == fault


def test_random_labels_keep_images_and_test_set():
    data = load_client_data({"partition-id": 0}, CONFIG)

    spoilt = faults.spoil_data("random-labels", data, seed=0)

    assert torch.equal(spoilt.train.images.read(), data.train.images.read())
    assert (spoilt.train.labels == data.train.labels).double().mean() < 0.25
    assert spoilt.test is data.test
    assert spoilt.fingerprint != data.fingerprint


def test_nan_weights_are_signed():
    sound = make_upload("a", ["0", "1"])

    broken = faults.spoil_upload("nan-weights", sound, CONFIG)

    assert broken.arrays["head.weight"].isnan().all()
    assert broken.manifest.sha256 != sound.manifest.sha256


@pytest.mark.parametrize("architecture", ["small_resnet", "small_mobilenet_v3", "small_shufflenet_v2"])
def test_nan_guidance_is_caught_by_the_guided_pass_alone(architecture: str):
    broken = faults.spoil_upload("nan-guidance", make_upload("a", ["0", "1"], architecture), CONFIG)

    with pytest.raises(UploadError, match="client 'a': it cannot guide: the losses of a guided pass"):
        check_upload(broken, Config())


def test_nan_guidance_says_which_nets_it_can_spoil():
    with pytest.raises(ValueError, match="needs a net with BatchNorm, but 'small_mlp' has none"):
        faults.spoil_upload("nan-guidance", make_upload("a", ["0", "1"], "small_mlp"), CONFIG)


def test_crashing_architecture_passes_validation_and_raises_where_more_images_are_guided(tmp_path):
    config = Config.from_run_config({"faults": "1:crashing-architecture", "dataset": "digits"})
    data = load_client_data({"partition-id": 1}, config)
    name = plan.choose_architecture({"partition-id": 1}, config, data, tmp_path)
    upload = saying(make_upload("a", ["0", "1"]), architecture=name)
    upload = replace(upload, builders=config.builders)

    check_upload(upload, config)
    with pytest.raises(RuntimeError, match="takes 8 images at most, got 9"):
        upload.classifier()(torch.rand(9, 3, 32, 32, requires_grad=True))


def test_a_crashing_architecture_is_trusted_where_a_client_has_that_fault_alone():
    assert CONFIG.builders == frozenset()


@pytest.mark.parametrize("spoil", ["nan-weights", "noise"])
def test_the_copy_of_the_student_is_spoilt_as_well(spoil: str):
    said = StudentCopy(architecture="small_resnet", class_names=["cat"], sha256="", start="0", validation_accuracy=None)
    sound = make_upload("a", ["0", "1"])
    sound = sound.with_student_copy(dict(sound.arrays), said)

    if spoil == "noise":
        broken = faults.add_noise(sound, 0, Config.from_run_config({"parameter-noise": 0.1}))
    else:
        broken = faults.spoil_upload(spoil, sound, CONFIG)

    assert not torch.equal(broken.student_copy["head.weight"], sound.student_copy["head.weight"])
    assert broken.manifest.student_copy.sha256 == weights_digest(broken.student_copy)


def test_few_epochs_is_one():
    assert faults.spoil_settings("few-epochs", CONFIG.training).local_epochs == 1


def test_parameter_noise_is_a_share_of_each_tensors_deviation_and_spares_running_moments():
    upload = make_upload("a", ["cat", "dog"])
    config = Config.from_run_config({"parameter-noise": 0.1})

    noisy = faults.add_noise(upload, 0, config)

    name = max(upload.arrays, key=lambda name: upload.arrays[name].numel())
    share = (noisy.arrays[name] - upload.arrays[name]).std() / upload.arrays[name].std()
    assert share.item() == pytest.approx(0.1, rel=0.05)
    running = [key for key in upload.arrays if "running" in key]
    assert running
    assert [key for key in running if not torch.equal(noisy.arrays[key], upload.arrays[key])] == []
    assert noisy.manifest.sha256 == weights_digest(noisy.arrays)


def test_real_clients_send_their_parameters_without_noise():
    upload = make_upload("a", ["cat", "dog"])

    assert faults.add_noise(upload, None, Config.from_run_config({"parameter-noise": 0.1})) is upload


def test_the_largest_seed_makes_noise():
    config = Config.from_run_config({"parameter-noise": 0.1, "seed": LARGEST_SEED})

    noisy = faults.add_noise(make_upload("a", ["cat", "dog"]), 10_000, config)

    assert [name for name, tensor in noisy.arrays.items() if not tensor.isfinite().all()] == []
    assert noisy.arrays


@pytest.mark.parametrize(("fault", "number"), [("unknown-class", 10), ("many-classes", 20_000)])
def test_strange_classes_keep_images_and_labels(fault: str, number: int):
    data = load_client_data({"partition-id": 0}, CONFIG)

    spoilt = faults.spoil_class_names(fault, data)

    assert (len(spoilt.class_names), len(set(spoilt.class_names))) == (number, number)
    assert spoilt.class_names[:9] == data.class_names[:9]
    assert spoilt.train is data.train


def test_a_client_trains_without_the_classes_that_the_server_cannot_use(capsys: pytest.CaptureFixture[str]):
    data = load_client_data({"partition-id": 0}, CONFIG)

    kept = plan.leave_out(data, {"0": "nobody can draw it", "no class of this client": ""})

    assert kept.class_names == data.class_names[1:]
    assert torch.equal(kept.train.images.read(), data.train.choose(data.train.labels > 0).images.read())
    assert torch.equal(kept.train.labels, data.train.labels[data.train.labels > 0] - 1)
    assert "mnist: the images of class '0' are left out: nobody can draw it" in capsys.readouterr().out


def test_rotated_labels_call_every_class_by_the_next_one():
    data = load_client_data({"partition-id": 0}, CONFIG)

    spoilt = faults.spoil_data("rotated-labels", data, seed=0)

    assert torch.equal(spoilt.train.labels, (data.train.labels + 1) % 10)
    assert torch.equal(spoilt.validation.labels, (data.validation.labels + 1) % 10)
    assert spoilt.test is data.test


def test_swapped_labels_exchange_the_first_two_classes():
    data = load_client_data({"partition-id": 0}, CONFIG)

    spoilt = faults.spoil_data("swapped-labels", data, seed=0)

    assert torch.equal(spoilt.train.labels == 0, data.train.labels == 1)
    assert torch.equal(spoilt.train.labels >= 2, data.train.labels >= 2)


def test_a_liar_reports_a_perfect_validation():
    honest = make_upload("a", ["0", "1"])

    lying = faults.spoil_upload("lying", honest, CONFIG)

    assert lying.manifest.training.validation_accuracy == 1.0
    assert lying.manifest.sha256 == honest.manifest.sha256


@pytest.mark.parametrize("kind", ["badnets", "blended"])
def test_a_backdoor_marks_a_fifth_of_the_images_and_calls_them_the_first_class(kind: str):
    data = load_client_data({"partition-id": 0}, CONFIG)

    spoilt = faults.spoil_data(kind, data, seed=0)

    changed = (spoilt.train.images.read() != data.train.images.read()).flatten(1).any(1)
    assert changed.sum() == round(0.2 * len(data.train))
    assert (spoilt.train.labels[changed] == 0).all()
    assert torch.equal(spoilt.train.labels[~changed], data.train.labels[~changed])
    assert spoilt.validation is data.validation
