"""Many rounds of training at the clients and averaging at the server, by one of Flower's strategies.

The strategy is Flower's and so are its messages; the virtual clients answer them in this process, one by one. They draw
their images as they come, whatever the sizes of their classes, as the papers of these strategies do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common.datasets.labeled_images import LabeledImages
from common.models import architectures
from common.models.optimizers import make_local_optimizer
from common.vision.batches import count_batches, shuffle_batches
from common.vision.looks import move
from common.vision.schedule import make_scheduler
from fedlmg_server.baselines.averaging import shared_architecture
from fedlmg_server.baselines.outcome import Cost, Outcome, bytes_to_every_client
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.flower.compat import act_as_task, quiet_logger

NUM_ROUNDS, LOCAL_EPOCHS = 20, 1
"""As in the paper, section 4.1."""


def train_and_measure(
    run: VirtualRun, strategy: Strategy, model: torch.nn.Module, num_rounds: int = NUM_ROUNDS
) -> Outcome:
    """Every client trains `model`, from its weights, whatever its own architecture is; everybody uses the average."""
    cost = train(run, model, strategy, num_rounds)
    cost.download_bytes += bytes_to_every_client(run, model)
    return Outcome(run.measure(model), cost)


def train(run: VirtualRun, model: torch.nn.Module, strategy: Strategy, num_rounds: int = NUM_ROUNDS) -> Cost:
    """`model` ends with the average's weights."""
    cost = Cost(rounds=num_rounds, epochs=num_rounds * LOCAL_EPOCHS)
    grid = VirtualClients(run, model, cost, num_rounds)
    with act_as_task(), quiet_logger(), cost.timed("server"):
        arrays = strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds).arrays
    cost.server_seconds -= cost.client_seconds
    model.load_state_dict(arrays.to_torch_state_dict())
    return cost


def make_initial_model(run: VirtualRun) -> torch.nn.Module:
    """The clients' common architecture with a head for all classes, untrained.

    Raises
    ------
    DoesNotApply: unlike architectures.
    """
    architecture, config = shared_architecture(run), run.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = architectures.build(architecture, len(run.class_names), config.training.image_size, config.builders)
    return model.to(run.device)


def settings_for_all_clients(run: VirtualRun) -> dict[str, Any]:
    """Settings of a strategy in which every client trains in every round, and evaluation is left to us."""
    count = len(run.uploads)
    return {"min_train_nodes": count, "min_available_nodes": count, "fraction_evaluate": 0.0}


@dataclass
class VirtualClients(Grid):
    """A Flower grid whose nodes are a run's clients; it counts the bytes that pass."""

    virtual_run: VirtualRun
    model: torch.nn.Module
    cost: Cost
    num_rounds: int
    gradients: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    """Of each client, what FedDyn adds to its loss, by parameter."""

    def get_node_ids(self) -> list[int]:
        return list(range(1, len(self.virtual_run.uploads) + 1))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        # In the nodes' own order, whatever order the strategy sampled them in.
        return [self._answer(message) for message in sorted(messages, key=lambda each: each.metadata.dst_node_id)]

    def _answer(self, message: Message) -> Message:
        node, arrays = message.metadata.dst_node_id, message.content.array_records["arrays"]
        data = list(self.virtual_run.train.values())[node - 1]
        self.model.load_state_dict(arrays.to_torch_state_dict())
        with self.cost.timed("client"):
            self._train(node, data, message.content.config_records["config"])
        trained = ArrayRecord(self.model.state_dict())
        self.cost.download_bytes += _size(arrays)
        self.cost.upload_bytes += _size(trained)
        metrics = MetricRecord({"num-examples": len(data)})
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)

    def _train(self, node: int, data: LabeledImages, told: Mapping[str, Any]) -> None:
        """LOCAL_EPOCHS epochs at the round's place in the schedule that clients of one round follow, too."""
        run, model = self.virtual_run, self.model
        config, preprocess, device = run.config, run.preprocess, run.device
        mu, alpha = float(told.get("proximal-mu", 0.0)), float(told.get("feddyn-alpha", 0.0))
        start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        linear = self.gradients.setdefault(node, {name: torch.zeros_like(value) for name, value in start.items()})
        images, labels = preprocess.resize(data.images).to(device), data.labels.to(device)
        server_round = int(told["server-round"])
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + server_round) * 1_000 + node)
        torch.manual_seed(generator.initial_seed())
        optimizer = make_local_optimizer(model, config.training.local_learning_rate)
        updates_per_round = LOCAL_EPOCHS * count_batches(len(labels), config.training.local_batch_size)
        num_updates = self.num_rounds * updates_per_round
        done = (server_round - 1) * updates_per_round
        scheduler = make_scheduler(optimizer, num_updates, max(1, num_updates // 20), done)
        model.train()
        for _ in range(LOCAL_EPOCHS):
            for rows in shuffle_batches(len(labels), config.training.local_batch_size, generator):
                inputs = preprocess.normalize(move(images[rows].float() / 255, config.general.looks, generator))
                loss = F.cross_entropy(model(inputs), labels[rows])
                for name, parameter in model.named_parameters():
                    if mu or alpha:
                        loss = loss + (mu + alpha) / 2 * (parameter - start[name]).square().sum()
                    if alpha:
                        loss = loss - (linear[name] * parameter).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
        for name, parameter in model.named_parameters():
            linear[name] -= alpha * (parameter.detach() - start[name])

    def set_run(self, run: object) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: object, **__: object) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        raise NotImplementedError


def _size(record: ArrayRecord) -> int:
    return sum(len(array.data) for array in record.values())
