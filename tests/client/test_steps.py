"""A step of training where memory is short: the same gradients, in parts."""

from itertools import accumulate
from pathlib import Path

import pytest
import torch

from common.config.run import LocalTrainingConfig
from common.models import architectures
from fedlmg_client import training
from fedlmg_client.steps import Steps
from tests.client.noise import noise_data

SIZE = 8
INPUTS = torch.rand(10, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10) % 3


class Small(torch.nn.Module):
    """A linear net on an accelerator that holds `most` images."""

    def __init__(self, most: int):
        super().__init__()
        torch.manual_seed(0)
        self.most, self.head, self.asked = most, torch.nn.Linear(192, 3), []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        return self.head(images.flatten(1))


def make_step(most: int) -> Steps:
    net = Small(most)
    return Steps(net, torch.optim.SGD(net.parameters(), 0.1), "lab", SIZE)


@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_in_parts_takes_the_same_step(soft: bool):
    targets = torch.nn.functional.one_hot(LABELS, 3).float() if soft else LABELS
    ample, short = make_step(10), make_step(3)

    losses = [step(INPUTS, targets) for step in (ample, short)]

    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(short.model.head.weight, ample.model.head.weight)


def test_it_says_so_and_later_steps_begin_with_parts(capsys: pytest.CaptureFixture[str]):
    step = make_step(3)

    step(INPUTS, LABELS)
    step(INPUTS, LABELS)

    assert step.model.asked == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert capsys.readouterr().out.splitlines() == [
        "lab: out of memory with 10 images at once: going on with 5",
        "lab: out of memory with 5 images at once: going on with 2",
    ]


@pytest.mark.parametrize("most", range(3, 12))
def test_every_batch_is_read_in_parts_of_two_images_or_more(most: int):
    for size in range(2, 30):
        step = make_step(most)

        step(torch.rand(size, 3, 8, 8), torch.zeros(size, dtype=torch.int64))

        assert min(step.model.asked) >= 2
        assert size in accumulate(reversed(step.model.asked))


class Failing(torch.nn.Module):
    """A net with moments and dropout on an accelerator whose memory runs out at the call of its last layer with one of
    these numbers."""

    def __init__(self, calls: set[int]):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(192), torch.nn.Dropout())
        self.calls, self.count, self.head = calls, 0, torch.nn.Linear(192, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found, self.count = self.layers(images), self.count + 1
        if self.count in self.calls:
            raise torch.OutOfMemoryError
        return self.head(found)


@pytest.mark.parametrize(("calls", "most"), [({1}, 5), ({1, 3}, 2)])
def test_an_attempt_that_fails_leaves_no_trace(calls: set[int], most: int):
    failing, known = (Failing(numbers) for numbers in (calls, set()))
    steps = [Steps(net, torch.optim.SGD(net.parameters(), 0.1), "lab", SIZE) for net in (failing, known)]
    steps[1].most = most

    states = []
    for step in steps:
        torch.manual_seed(1)
        step(INPUTS, LABELS)
        states.append({**step.model.state_dict(), "random numbers": torch.get_rng_state()})

    assert all(torch.equal(states[0][name], each) for name, each in states[1].items())


def test_a_memory_that_holds_not_even_two_images_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        make_step(1)(INPUTS, LABELS)


def test_a_client_whose_memory_is_short_ends_with_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build = architectures.build

    def build_for_small_memory(*arguments: object) -> torch.nn.Module:
        net = build(*arguments)

        def refuse(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
            if net.training and len(inputs[0]) > 5:
                raise torch.OutOfMemoryError

        net.register_forward_pre_hook(refuse)
        return net

    monkeypatch.setattr(architectures, "build", build_for_small_memory)
    config = LocalTrainingConfig(local_epochs=2, local_batch_size=12, image_size=16)

    upload = training.train(noise_data(24, 6), "small_resnet", config, 0, tmp_path, "cpu")

    assert len(upload.manifest.training.history) == 2


@pytest.mark.parametrize(("image_size", "expected"), [(72, torch.bfloat16), (32, torch.float32)])
def test_a_large_image_is_read_in_the_precision_of_the_processor_and_weights_stay_in_float32(
    monkeypatch: pytest.MonkeyPatch, image_size: int, expected: torch.dtype
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    seen: list[torch.dtype] = []
    net = architectures.build("resnet18", 3, image_size)
    net.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    loss = Steps(net, torch.optim.SGD(net.parameters(), 0.1), "lab", image_size)(
        torch.rand(4, 3, image_size, image_size), LABELS[:4]
    )

    assert seen == [expected]
    assert {loss.dtype, *(tensor.dtype for tensor in net.parameters())} == {torch.float32}
