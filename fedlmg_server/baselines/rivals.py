"""Every method by name: those that `fedlmg run` measures itself, and the rivals that only a benchmark runs."""

import json
from collections.abc import Callable

from fedlmg_server.baselines import (
    co_boosting,
    compare,
    dense,
    fedavg,
    feddf,
    feddyn,
    fedprox,
    linear_probe,
    own_model,
    weighted_ensemble,
)
from fedlmg_server.baselines.federation import Cost, DoesNotApply, Federation, Outcome
from fedlmg_server.distillation import aggregate

RIVALS: dict[str, Callable[[Federation], Outcome]] = {
    "own-model": own_model.own_model,
    "ensemble-by-quality": weighted_ensemble.by_quality,
    "fedavg-one-shot": fedavg.one_shot,
    "feddf": feddf.feddf,
    "dense": dense.dense,
    "co-boosting": co_boosting.co_boosting,
    "fedavg-20-rounds": fedavg.many_rounds,
    "fedprox-20-rounds": fedprox.many_rounds,
    "feddyn-20-rounds": feddyn.many_rounds,
    "ceiling-linear-probe": linear_probe.linear_probe,
}
MEASURED_IN_RUN = ("local", "ensemble", *compare.TRAINED)
NAMES = (*MEASURED_IN_RUN, *RIVALS)


def measure(method: str, federation: Federation) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: the method asks for what this federation has not, or its run was made without `compare`.
    """
    return RIVALS[method](federation) if method in RIVALS else _of_the_run(method, federation)


def _of_the_run(method: str, federation: Federation) -> Outcome:
    results = json.loads((federation.workspace.report / "results.json").read_text())
    if method in results["methods"]:
        per_client = results["methods"][method]["per_client"]
    elif method in ("local", "ensemble"):
        rows, _ = compare.without_training(federation.uploads, federation.tests, federation.device)
        per_client = rows[method]["per_client"]
    elif method == f"fedlmg-{federation.config.distillation.aggregation}":
        model, _ = aggregate.load(federation.workspace, federation.config, federation.device)
        per_client = federation.measure(model)
    else:
        raise DoesNotApply("the run was made without it: set `compare`")
    return Outcome(per_client, _cost_in_run(method, results, federation))


def _cost_in_run(method: str, results: dict, federation: Federation) -> Cost:
    """Every student takes as many updates, so that the run's one distillation stands for each of them."""
    cost, stages = federation.one_exchange(), results["stages"]
    if method == "local":
        return Cost(epochs=cost.epochs, client_seconds=cost.client_seconds)
    if method == "ensemble":
        cost.download_bytes = federation.exchanged()
        return cost
    cost.download_bytes = federation.sent_back(federation.student())
    cost.server_seconds = stages["distillation"]
    if method == "ceiling":
        images = sum(data.images.numel() for data in federation.trains.values())
        count = sum(map(len, federation.trains.values()))
        return Cost(1, 0, images, cost.download_bytes, 0.0, cost.server_seconds, count)
    cost.num_images = results["synthesis"]["num_images"]
    cost.server_seconds += stages["prompts-only" if method.startswith("prompts-only") else "synthesis"]
    if method == "prompts-only-fine-tuning":
        # Nothing of the clients is used but their classes' names.
        cost.epochs, cost.upload_bytes, cost.client_seconds = 0, 0, 0.0
    return cost
