"""How many general images a client replays beside its own."""

import torch

from fedlmg_client.fine_tuning import REPLAY_BATCH, REPLAY_BATCH_OF_SOME_CLASSES, choose_batch


def test_a_client_that_holds_every_class_replays_few():
    assert choose_batch(torch.tensor([0, 1, 2, 1]), 3) == REPLAY_BATCH


def test_a_client_that_lacks_a_class_replays_more():
    assert choose_batch(torch.tensor([0, 2, 2]), 3) == REPLAY_BATCH_OF_SOME_CLASSES
