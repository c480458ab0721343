"""Other ways to merge classifiers that shared a start: their average, Fisher-weighted average, TIES, greedy soup.

They merge what `fedlmg-merge` merges: classifiers of the student's architecture that began at the general model.
Images that a rule needs are general ones, for the server has no others.
"""

import torch
import torch.nn.functional as F

from common.vision.batches import shuffle_batches
from fedlmg_server.baselines.attack import measure_attack
from fedlmg_server.baselines.outcome import DoesNotApply, Outcome, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.merge import Member, State, add_differences
from fedlmg_server.distillation.merged_student import Start, find_members, measure_on_general_images
from fedlmg_server.distillation.student import build_classifier
from fedlmg_server.general.images import load_general_images

FISHER_IMAGES, SMALLEST_FISHER = 512, 1e-8
"""General images on which the Fisher information is estimated; what is added to it."""
TIES_SHARE, TIES_SCALE = 0.2, 1.0
"""Share of the largest changes that is kept; factor on their sum (TIES, 2306.01708, its defaults)."""


def average(run: VirtualRun) -> Outcome:
    """One-shot FedAvg of the classifiers.

    Raises
    ------
    DoesNotApply: clients sent no classifiers that shared a start.
    """
    start, members = _members(run)
    return _measure(run, add_differences(start.state, members, 1.0))


def ties(run: VirtualRun) -> Outcome:
    """TIES (Yadav et al., 2023): trim small changes, elect a sign, average the changes of that sign.

    Raises
    ------
    DoesNotApply: as `average`.
    """
    start, members = _members(run)
    merged = add_differences(start.state, members, 1.0)
    for name, base in start.state.items():
        if base.is_floating_point() and "running_" not in name:
            changes = torch.stack([_trim(member.state[name] - base) for member in members])
            agrees = (changes.sign() == changes.sum(0).sign()) & (changes != 0)
            merged[name] = base + TIES_SCALE * (changes * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return _measure(run, merged)


def fisher(run: VirtualRun) -> Outcome:
    """Fisher-weighted average (Matena and Raffel, 2022), with the diagonal Fisher information on general images.

    Raises
    ------
    DoesNotApply: as `average`.
    """
    start, members = _members(run)
    merged = add_differences(start.state, members, 1.0)
    weights = [_fisher_information(run, member.state) for member in members]
    for name in weights[0]:
        parts = torch.stack([weight[name] + SMALLEST_FISHER for weight in weights])
        values = torch.stack([member.state[name] for member in members])
        merged[name] = (parts * values).sum(0) / parts.sum(0)
    return _measure(run, merged)


def greedy_soup(run: VirtualRun) -> Outcome:
    """Greedy soup (Wortsman et al., 2022): a classifier joins the average if general images are read no worse.

    Raises
    ------
    DoesNotApply: as `average`.
    """
    start, members = _members(run)
    measure = measure_on_general_images(run, _build(run), load_general_images(run))
    ranked = sorted(members, key=lambda member: measure(member.state), reverse=True)
    chosen, best = [ranked[0]], measure(ranked[0].state)
    for member in ranked[1:]:
        accuracy = measure(add_differences(start.state, [*chosen, member], 1.0))
        if accuracy >= best:
            chosen, best = [*chosen, member], accuracy
    return _measure(run, add_differences(start.state, chosen, 1.0))


def _members(run: VirtualRun) -> tuple[Start, list[Member]]:
    if not run.config.general.warm_start:
        raise DoesNotApply("the clients shared no start: set 'warm-start'")
    start = Start.of_run(run)
    members = find_members(run, start, run.teacher_weights)
    if len(members) < len(run.uploads):
        raise DoesNotApply("some clients sent no classifier of the student's architecture")
    return start, members


def _build(run: VirtualRun) -> torch.nn.Module:
    return build_classifier(run, run.config.distillation.student_architecture, len(run.class_names)).to(run.device)


def _measure(run: VirtualRun, state: State) -> Outcome:
    model, cost = _build(run), cost_of_uploads(run)
    model.load_state_dict(state)
    cost.download_bytes += bytes_to_every_client(run, model)
    return Outcome(run.measure(model.eval()), cost, measure_attack(run, model))


def _trim(change: torch.Tensor) -> torch.Tensor:
    """The change with all but its largest entries set to 0."""
    kept = max(1, round(TIES_SHARE * change.numel()))
    least = change.abs().flatten().topk(kept).values[-1]
    return change.where(change.abs() >= least, 0)


def _fisher_information(run: VirtualRun, state: State) -> dict[str, torch.Tensor]:
    """Parameter -> mean square, over images, of the gradient of the log-likelihood of the classifier's own answer."""
    model = _build(run)
    model.load_state_dict(state)
    model.eval()
    images = load_general_images(run).train.images
    generator = torch.Generator().manual_seed(run.config.seed)
    rows = torch.cat(shuffle_batches(len(images), len(images), generator))[:FISHER_IMAGES]
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for row in rows.tolist():
        inputs = run.preprocess(images.choose(torch.tensor([row])).read().to(run.device).float() / 255)
        logits = model(inputs)
        answer = torch.multinomial(logits.softmax(1).cpu(), 1, generator=generator)[0].to(run.device)
        gradients = torch.autograd.grad(F.cross_entropy(logits, answer), list(model.parameters()))
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient.square()
    return {name: (value / len(rows)).cpu() for name, value in total.items()}
