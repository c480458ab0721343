"""The figures of a run: what `report/results.json` holds and every table and plot shows; written and read here alone.

Accuracies are fractions in [0, 1]; None means not measured (a client that left, a baseline outside simulation).
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, computed_field

from common.contracts import Amount, Contract, Count, Fraction, explain_error
from common.labels.left_out import explain_left_out
from common.manifest import Membership, Privacy
from common.storage.atomic import write_json
from common.vision.shares import wilson_interval
from fedlmg_server.method_names import UPPER_BOUNDS, place_method

SCHEMA = 1
FILE = "results.json"

Model = Literal["own", "general", "no_federation", "aggregated", "personal"]
"""A model that a client measures on its own test images, by the name of its accuracy in `ClientResult`."""


class ImageCounts(Contract):
    """Numbers of a client's synthetic images."""

    generated: Count
    read_as_asked: Count
    """Read by the client's classifier as the class that was asked for."""
    kept: Count
    """Learned from."""


class ClientResult(Contract):
    architecture: str
    num_examples: Count
    upload_bytes: Count
    own_accuracy: Fraction | None
    """The client's own model on its own test images."""
    own_accuracy_all_clients: Fraction | None = None
    """The client's own model, mean over all clients' test images."""
    general_accuracy: Fraction | None = None
    """The general model that the server made without any client, on the client's test images."""
    no_federation_accuracy: Fraction | None = None
    """The general model that the client fine-tuned alone, on its own test images: what it would have without the
    round."""
    no_federation_accuracy_all_clients: Fraction | None = None
    """The same model, mean over all clients' test images."""
    aggregated_accuracy: Fraction | None
    """The returned model on the client's test images."""
    personal_accuracy: Fraction | None = None
    """The returned model that the client fine-tuned, on its own test images: what it has with the round."""
    personal_accuracy_all_clients: Fraction | None = None
    """The same model, mean over all clients' test images."""
    num_test_images: Count | None = None
    """None: the client did not tell."""
    balanced_accuracy: dict[Model, Fraction] = Field(default_factory=dict)
    """The model whose accuracy on the client's own test images is above -> the mean of its accuracies on each class."""
    quality: Fraction | None = None
    """As a teacher: 0 is chance, 1 is perfect."""
    weight: Fraction = 1.0
    """As a teacher."""
    weight_reason: str = ""
    """Why the weight is not 1."""
    labels: Literal["", "consistent", "mislabelled", "unknown"] = ""
    """What the witness found (see `witness/verdict.py`); empty where it was not heard."""
    images: ImageCounts | None = None
    membership: Membership | None = None
    privacy: Privacy | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accuracy_interval(self) -> dict[Model, tuple[float, float]]:
        """The model -> where its accuracy lies for all images like the client's, with a confidence of 95 %."""
        if not self.num_test_images:
            return {}
        measured = {model: getattr(self, f"{model}_accuracy") for model in get_args(Model)}
        return {
            model: wilson_interval(accuracy, self.num_test_images)
            for model, accuracy in measured.items()
            if accuracy is not None
        }


class ModelResult(Contract):
    """The returned model."""

    aggregation: str
    architecture: str
    accuracy: Fraction | None
    """Mean over the clients in the model, each on its own test images."""


class MethodResult(Contract):
    accuracy: Fraction | None
    """Mean over the clients."""
    per_client: dict[str, Fraction | None]
    """Client -> accuracy on its test images."""
    balanced_accuracy: Fraction | None = None
    """Mean over the clients of the accuracies in which every class counts alike."""
    balanced_per_client: dict[str, Fraction | None] = Field(default_factory=dict)
    """Client -> the same on its test images."""
    attack_success: Fraction | None = None
    """Share of images with a backdoor's trigger that are called what the attacker wants; None: no client has one."""

    @property
    def measured(self) -> dict[str, float]:
        """`per_client` without the clients where nothing was measured."""
        return {client: accuracy for client, accuracy in self.per_client.items() if accuracy is not None}

    @property
    def balanced(self) -> dict[str, float]:
        """`balanced_per_client`, likewise."""
        return {client: accuracy for client, accuracy in self.balanced_per_client.items() if accuracy is not None}


class SynthesisResult(Contract):
    num_images: Count
    seconds: Amount
    images_per_second: Amount
    rejected: dict[str, dict[str, dict[str, Count]]] = Field(default_factory=dict)
    """Client -> class -> reason -> number of images."""


class GeneralResult(Contract):
    """The images from which the general models of a warm-started run learned."""

    source: Literal["public", "unguided"]
    num_images: Count


class Outcome(Contract):
    """What became of a client."""

    state: Literal["answered", "not evaluated", "missing", "refused"]
    reason: str


class Confusion(Contract):
    """What the returned model takes for what, on all test images."""

    class_names: list[str]
    counts: list[list[Count]]
    """Row true class, column predicted."""
    per_client: dict[str, list[Fraction | None]]
    """Client -> accuracy of each class, None where the client has no test image of it."""
    images: dict[str, list[Count]] = Field(default_factory=dict)
    """Client -> its test images of each class."""


def _check_schema(schema: int) -> int:
    if schema != SCHEMA:
        raise ValueError(f"this version reads schema {SCHEMA}: use the version that made the run")
    return schema


class Results(Contract):
    schema_version: Annotated[int, AfterValidator(_check_schema)] = Field(alias="schema")
    seed: int
    config: dict[str, Any]
    """The run's flat settings."""
    clients: dict[str, ClientResult]
    aggregated: ModelResult
    methods: dict[str, MethodResult]
    """Those that were measured, in the order they are shown."""
    synthesis: SynthesisResult
    general: GeneralResult | None = None
    """None: no warm start."""
    stages: dict[str, Amount]
    """Seconds of each."""
    missing: dict[str, str]
    """Client -> why no upload of it is in the model."""
    left_out: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Client -> those of its classes that are in no part of the model -> why."""
    outcomes: dict[str, Outcome]
    matrix: dict[str, dict[str, Fraction | None]]
    """Client -> its own model's accuracy on each client's test images."""
    confusion: Confusion | None

    def rejections(self, client: str) -> dict[str, int]:
        """Reason -> number of a client's images that were rejected for it, over all classes."""
        classes = self.synthesis.rejected.get(client, {})
        return dict(sum((Counter(reasons) for reasons in classes.values()), Counter()))

    @property
    def warm_started(self) -> bool:
        """Whether any client measured a general model or what became of one."""
        return any(
            accuracy is not None
            for client in self.clients.values()
            for accuracy in (client.general_accuracy, client.no_federation_accuracy, client.personal_accuracy)
        )

    def best_accuracy(self, client: str | None = None) -> float | None:
        """Highest accuracy of any method but the `UPPER_BOUNDS`, for one client or on average."""
        found = [method for name, method in self.methods.items() if name not in UPPER_BOUNDS]
        values = [method.accuracy if client is None else method.per_client.get(client) for method in found]
        return max((value for value in values if value is not None), default=None)


def make_results(
    *,
    seed: int,
    config: Mapping[str, Any],
    clients: Mapping[str, ClientResult],
    aggregated: ModelResult,
    methods: Mapping[str, MethodResult],
    synthesis: SynthesisResult,
    stages: Mapping[str, float],
    missing: Mapping[str, str],
    refused: Mapping[str, str] | None = None,
    unevaluated: Mapping[str, str] | None = None,
    left_out: Mapping[str, Mapping[str, str]] | None = None,
    matrix: Mapping[str, Mapping[str, float]] | None = None,
    confusion: Confusion | None = None,
    general: GeneralResult | None = None,
) -> Results:
    """The figures of a run, each as `Results` describes it.

    missing, refused, unevaluated: client -> why no upload of it came; what is wrong with the one that came; why it did
        not measure the returned model. Together with `clients` they make `outcomes`.

    left_out: client -> those of its classes that are in no part of the model -> why.

    Raises
    ------
    ValueError: a value out of range; the message names the key.
    """
    refused, unevaluated, left_out = refused or {}, unevaluated or {}, left_out or {}
    states = {
        "answered": {name: explain_left_out(why) if (why := left_out.get(name)) else "" for name in clients},
        "not evaluated": unevaluated,
    }
    states |= {"missing": missing, "refused": refused}
    outcomes = {
        name: {"state": state, "reason": reason}
        for state, reasons in states.items()
        for name, reason in reasons.items()
    }
    return _validate(
        {
            "schema": SCHEMA,
            "seed": seed,
            "config": dict(config),
            "clients": dict(clients),
            "aggregated": aggregated,
            "methods": {name: methods[name] for name in sorted(methods, key=place_method)},
            "synthesis": synthesis,
            "general": general,
            "stages": dict(stages),
            "missing": {**missing, **refused},
            "left_out": {client: dict(why) for client, why in left_out.items() if client in clients},
            "outcomes": outcomes,
            "matrix": {name: dict(row) for name, row in (matrix or {}).items()},
            "confusion": confusion,
        }
    )


def read_results(report: Path) -> Results:
    """The figures in a run's `report` folder.

    Raises
    ------
    ValueError: the file is not that of a run's figures; the message names the key.
    OSError: there is no such file.
    """
    return _validate(json.loads((report / FILE).read_text(encoding="utf-8")))


def write_results(report: Path, results: Results) -> None:
    write_json(report / FILE, results.to_json())


def _validate(content: object) -> Results:
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain_error(error, FILE)) from None
