"""The learning-rate schedule: its rates are those of the formula, to the bit, and so are the weights."""

import pytest
import torch
from torch import nn

from common.vision.batches import count_batches, shuffle_batches
from common.vision.schedule import make_scheduler, warm_up_then_cosine

NUM_STEPS, WARM_UP, PEAK = 23, 3, 0.05
OPTIMIZERS = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), PEAK, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), PEAK, weight_decay=0.05),
}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def train_by_hand(name: str) -> torch.Tensor:
    """Weights after a training that sets every rate by the formula."""
    model = make_model()
    optimizer = OPTIMIZERS[name](model)
    for step in range(NUM_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = PEAK * warm_up_then_cosine(step, NUM_STEPS, WARM_UP)
        take_step(model, optimizer, step)
    return model.weight


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_weights_are_those_of_rates_set_by_hand(name: str):
    model = make_model()
    optimizer = OPTIMIZERS[name](model)
    scheduler = make_scheduler(optimizer, NUM_STEPS, WARM_UP)
    for step in range(NUM_STEPS):
        take_step(model, optimizer, step)
        scheduler.step()

    assert torch.equal(model.weight, train_by_hand(name))


def test_a_schedule_that_goes_on_with_a_new_optimiser_has_the_same_rates():
    model = make_model()
    optimizer = OPTIMIZERS["SGD"](model)
    scheduler, rates = make_scheduler(optimizer, NUM_STEPS, WARM_UP, steps_done=10), []
    for step in range(10, NUM_STEPS):
        rates += [group["lr"] for group in optimizer.param_groups]
        take_step(model, optimizer, step)
        scheduler.step()

    assert rates == [PEAK * warm_up_then_cosine(step, NUM_STEPS, WARM_UP) for step in range(10, NUM_STEPS)]


def test_a_training_of_no_steps_has_a_schedule():
    make_scheduler(OPTIMIZERS["SGD"](make_model()), num_steps=0, warm_up_steps=1)


@pytest.mark.parametrize("num_images", [2, 8, 9, 10, 11, 12])
def test_batches_are_counted_as_they_are_made(num_images: int):
    batches = shuffle_batches(num_images, 4, torch.Generator())

    assert len(batches) == count_batches(num_images, 4)
    assert min(map(len, batches)) > 1


@pytest.mark.parametrize("num_images", [2, 5, 8, 9, 13])
def test_every_image_is_in_one_batch_also_a_lone_last_one(num_images: int):
    batches = shuffle_batches(num_images, 4, torch.Generator())

    assert sorted(torch.cat(batches).tolist()) == list(range(num_images))


def test_batches_are_those_of_a_plain_split_where_no_image_is_left_alone():
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))

    batches = shuffle_batches(10, 4, torch.Generator().manual_seed(3))

    assert all(map(torch.equal, batches, order.split(4)))
