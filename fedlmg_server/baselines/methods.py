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
    same_seconds,
    weighted_ensemble,
)
from fedlmg_server.baselines.outcome import (
    Cost,
    DoesNotApply,
    Outcome,
    bytes_of_sharing_uploads,
    bytes_to_every_client,
    cost_of_uploads,
)
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.saved_model import load_model
from fedlmg_server.distillation.student import make_student
from fedlmg_server.results import Results, read_results

BASELINES: dict[str, Callable[[VirtualRun], Outcome]] = {
    "prompts-only-same-seconds": same_seconds.prompts_only,
    "ensemble-by-quality": weighted_ensemble.by_quality,
    "fedavg-one-shot": fedavg.one_shot,
    "feddf": feddf.feddf,
    "dense": dense.dense,
    "co-boosting": co_boosting.co_boosting,
    "fedavg-20-rounds": fedavg.many_rounds,
    "fedprox-20-rounds": fedprox.many_rounds,
    "feddyn-20-rounds": feddyn.many_rounds,
    "centralised-linear-probe": linear_probe.linear_probe,
}
MEASURED_IN_RUN = (*compare.UNTRAINED, *compare.TRAINED)
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
    if method in results.methods:
        per_client = results.methods[method].measured
    elif method in compare.UNTRAINED:
        per_client = compare.measure_untrained(run)[0][method].measured
    elif method == compare.returned_method(run):
        per_client = run.measure(load_model(run))
    else:
        raise DoesNotApply("the run was made without it: give `fedlmg run --compare`")
    return Outcome(per_client, _cost_in_run(method, results, run))


def _cost_in_run(method: str, results: Results, run: VirtualRun) -> Cost:
    """Every student takes as many updates, so that the run's one distillation stands for each of them."""
    cost, stages = cost_of_uploads(run), results.stages
    if method in ("local-own", "local-all"):
        return Cost(epochs=cost.epochs, client_seconds=cost.client_seconds)
    if method == "ensemble":
        cost.download_bytes = bytes_of_sharing_uploads(run)
        return cost
    cost.download_bytes = bytes_to_every_client(run, make_student(run))
    cost.server_seconds = stages["distillation"]
    if method == "centralised":
        images = sum(data.images.numel() for data in run.train.values())
        count = sum(map(len, run.train.values()))
        return Cost(1, 0, images, cost.download_bytes, 0.0, cost.server_seconds, count)
    cost.num_images = results.synthesis.num_images
    cost.server_seconds += stages["prompts-only" if method.startswith("prompts-only") else "synthesis"]
    if method == "prompts-only-fine-tuning":
        # Nothing of the clients is used but their classes' names.
        cost.epochs, cost.upload_bytes, cost.client_seconds = 0, 0, 0.0
    return cost
