"""Every method by name: those that `fedlmg run` measures itself, and the baselines that only a benchmark runs."""

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
    merging,
    same_effort,
    stain,
    start,
    weighted_ensemble,
)
from fedlmg_server.baselines.outcome import (
    Cost,
    DoesNotApply,
    Outcome,
    bytes_of_sharing_uploads,
    bytes_of_starts_to_personalise,
    bytes_to_every_client,
    cost_of_uploads,
)
from fedlmg_server.baselines.virtual_run import Accuracies, VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.distillation.student import make_student
from fedlmg_server.method_names import UPPER_BOUNDS
from fedlmg_server.results import MethodResult, Results, read_results

BASELINES: dict[str, Callable[[VirtualRun], Outcome]] = {
    "general-stain-normalised": stain.stain_normalised,
    "general-multi-teacher": same_effort.general_multi_teacher,
    "general-same-seconds": same_effort.general_same_seconds,
    "general-same-updates": same_effort.general_same_updates,
    "prompts-only-same-seconds": same_effort.prompts_only,
    "ensemble-by-quality": weighted_ensemble.by_quality,
    "fedavg-one-shot": fedavg.one_shot,
    "feddf": feddf.feddf,
    "dense": dense.dense,
    "co-boosting": co_boosting.co_boosting,
    "fedavg-20-rounds": fedavg.many_rounds,
    "fedprox-20-rounds": fedprox.many_rounds,
    "feddyn-20-rounds": feddyn.many_rounds,
    "fedavg-one-shot-from-start": fedavg.one_shot_from_start,
    "fedavg-20-rounds-from-start": fedavg.many_rounds_from_start,
    "fedprox-20-rounds-from-start": fedprox.many_rounds_from_start,
    "feddyn-20-rounds-from-start": feddyn.many_rounds_from_start,
    "merge-average": merging.average,
    "merge-fisher": merging.fisher,
    "merge-ties": merging.ties,
    "merge-greedy-soup": merging.greedy_soup,
    "centralised-linear-probe": linear_probe.linear_probe,
}
MERGED = "fedlmg-merge"
"""Measured by a run that returns it."""
MEASURED_IN_RUN = (*compare.UNTRAINED, *compare.STARTED, *compare.TRAINED, MERGED)
NAMES = (*MEASURED_IN_RUN, *BASELINES)
NEED_COMPARISON = (*compare.TRAINED, "prompts-only-same-seconds")
"""Methods that need a run with `--compare`, unless they are what it returns."""


def measure_method(method: str, run: VirtualRun) -> Outcome:
    """
    Raises
    ------
    DoesNotApply: the method needs something that the run does not have, or the run was made without `--compare`.
    """
    return BASELINES[method](run) if method in BASELINES else _of_the_run(method, run)


def _of_the_run(method: str, run: VirtualRun) -> Outcome:
    results = read_results(run.workspace.report)
    attack = results.methods[method].attack_success if method in results.methods else None
    per_client: dict[str, float]
    if method in results.methods:
        per_client = _accuracies(results.methods[method])
    elif method in compare.UNTRAINED:
        per_client = _accuracies(compare.measure_untrained(run)[0][method])
    elif method == compare.returned_method(run):
        per_client = run.measure(load_model(run))
    elif method == "general":
        per_client = start.measure_general(run)
    elif method in compare.TRAINED and method not in compare.trained_methods(run):
        raise DoesNotApply("the run has no general images: set 'warm-start'")
    elif method == MERGED:
        raise DoesNotApply("the run returns another model: set 'aggregation' to 'merge'")
    elif method in compare.STARTED:
        raise DoesNotApply("no client told such a model's accuracy: 'warm-start' is off, or they train privately")
    else:
        raise DoesNotApply("the run was made without it: give `fedlmg run --compare`")
    return Outcome(per_client, _cost_in_run(method, results, run), attack)


def _accuracies(row: MethodResult) -> Accuracies:
    return Accuracies(row.measured, row.balanced)


def _cost_in_run(method: str, results: Results, run: VirtualRun) -> Cost:
    """Every student takes as many updates, so that the run's one distillation stands for each of them."""
    cost, stages = cost_of_uploads(run), results.stages
    returned = bytes_to_every_client(run, make_student(run))
    general = results.general.num_images if results.general else 0
    if method in ("local-own", "local-all"):
        return Cost(epochs=cost.epochs, download_bytes=cost.download_bytes, client_seconds=cost.client_seconds)
    if method == "ensemble":
        cost.download_bytes += bytes_of_sharing_uploads(run)
        return cost
    if method == "general":
        return Cost(download_bytes=returned, server_seconds=cost.server_seconds, num_images=general)
    if method.startswith("no-federation"):
        sent = bytes_of_starts_to_personalise(run)
        return Cost(download_bytes=sent, server_seconds=cost.server_seconds, num_images=general)
    if method in UPPER_BOUNDS:
        images = sum(data.images.numel() for data in run.train.values())
        count = sum(map(len, run.train.values())) + (general if method != "centralised" else 0)
        return Cost(1, 0, images, returned, 0.0, stages["distillation"], count)
    cost.num_images = results.synthesis.num_images + general
    cost.server_seconds += stages["distillation"]
    cost.server_seconds += stages["prompts-only" if method.startswith("prompts-only") else "synthesis"]
    if method == "prompts-only-fine-tuning":
        # Nothing of the clients is used but their classes' names.
        return Cost(1, 0, 0, returned, 0.0, cost.server_seconds, cost.num_images)
    cost.download_bytes += returned
    if method.startswith("personal"):
        cost.download_bytes += bytes_of_starts_to_personalise(run)
    return cost
