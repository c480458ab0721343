"""Write a run's results, its page, and the card beside its model, with what is known by then."""

from common.evaluation import Evaluation
from common.names import safe_name
from common.storage.atomic import write_bytes, write_json
from common.upload import Upload
from common.vision.shares import mean_of_known
from fedlmg_server.baselines.compare import Measurements
from fedlmg_server.general.images import summarise
from fedlmg_server.quarantine import read_rejections
from fedlmg_server.report import generated, model_card, page
from fedlmg_server.results import (
    ClientResult,
    GeneralResult,
    Model,
    ModelResult,
    SynthesisResult,
    make_results,
    write_results,
)
from fedlmg_server.run import Run
from fedlmg_server.witness.hearing import verdicts
from fedlmg_server.witness.verdict import Verdict

NAMES_IN_RESULTS: dict[str, Model] = {
    "own": "own",
    "general": "general",
    "no_federation": "no_federation",
    "returned": "aggregated",
    "personal": "personal",
}
"""A model's name in an `Evaluation` -> its name in the results."""


def write_report(
    run: Run,
    evaluations: dict[str, Evaluation],
    missing: dict[str, str],
    unevaluated: dict[str, str],
    measured: Measurements,
) -> None:
    """Write `report/` and `model/MODEL_CARD.md` of a run whose model is made.

    evaluations: client -> what it measured on its own test images.
    missing: client -> why no upload came.
    unevaluated: client -> why no evaluation came.
    measured: what the server measured itself (see `report/measuring.py`).
    """
    workspace, description = run.workspace, run.model_description
    found, left_out, scores = verdicts(run), workspace.class_notes.left_out, run.teacher_scores
    content = make_results(
        seed=run.config.seed,
        config=run.config.settings(),
        clients={
            upload.client: _client(
                run,
                upload,
                measured,
                told=evaluations.get(upload.client, Evaluation(num_examples=0)),
                verdict=found.get(upload.client),
                score=scores[upload.client],
                rejected=description["rejected"].get(upload.client, {}),
            )
            for upload in run.uploads
        },
        aggregated=ModelResult(
            aggregation=description["aggregation"],
            architecture=description["architecture"],
            # Clients in quarantine may answer, too.
            accuracy=mean_of_known(
                evaluations[upload.client].returned for upload in run.uploads if upload.client in evaluations
            ),
        ),
        methods=measured.rows,
        synthesis=_synthesis(run),
        general=_general(run),
        stages=workspace.stage_seconds(),
        missing=missing,
        refused=read_rejections(workspace),
        unevaluated=unevaluated,
        left_out={upload.client: left_out.get(safe_name(upload.client), {}) for upload in run.uploads},
        matrix=measured.matrix,
        confusion=measured.confusion,
    )
    histories = measured.histories or {f"fedlmg-{description['aggregation']}": description["history"]}
    write_json(workspace.report / "histories.json", histories)
    write_results(workspace.report, content)
    write_bytes(workspace.model / "MODEL_CARD.md", model_card.render(content, description["class_names"]).encode())
    write_bytes(workspace.report / "index.html", page.render(workspace.root, content).encode())


def _client(
    run: Run,
    upload: Upload,
    measured: Measurements,
    told: Evaluation,
    verdict: Verdict | None,
    score: dict,
    rejected: dict[str, dict[str, int]],
) -> ClientResult:
    """One row of the results. told: what the client measured itself. rejected: class -> reason -> number of images."""
    everywhere = {kind: mean_of_known(matrix.get(upload.client, {}).values()) for kind, matrix in measured.kept.items()}
    training = upload.manifest.training
    return ClientResult(
        quality=score["quality"],
        weight=score["weight"],
        weight_reason=score["reason"],
        labels=verdict.state if verdict else "",
        architecture=upload.manifest.architecture,
        num_examples=training.num_examples,
        upload_bytes=upload.num_bytes,
        num_test_images=told.num_examples or None,
        balanced_accuracy={NAMES_IN_RESULTS[kind]: value for kind, value in told.balanced.items()},
        own_accuracy=training.test_accuracy if told.own is None else told.own,
        own_accuracy_all_clients=mean_of_known(measured.matrix.get(upload.client, {}).values()),
        general_accuracy=told.general,
        no_federation_accuracy=told.no_federation,
        no_federation_accuracy_all_clients=everywhere.get("no-federation"),
        aggregated_accuracy=told.returned,
        personal_accuracy=told.personal,
        personal_accuracy_all_clients=everywhere.get("personal"),
        membership=upload.manifest.membership,
        privacy=upload.manifest.privacy,
        images=generated.summary(run.image_folder(upload), rejected),
    )


def _general(run: Run) -> GeneralResult | None:
    summary = summarise(run) if run.config.general.warm_start else None
    return None if summary is None else GeneralResult.model_validate(summary)


def _synthesis(run: Run) -> SynthesisResult:
    seconds = run.workspace.stage_seconds()["synthesis"]
    return SynthesisResult(
        num_images=run.num_images,
        seconds=seconds,
        images_per_second=run.workspace.stage_images()["synthesis"] / max(seconds, 1e-9),
        rejected=run.model_description["rejected"],
    )
