"""The figures of a run, checked: what `report/results.json` holds and every table and plot shows.

Accuracies are fractions in [0, 1]; `None` means not measured (a client that left, a baseline outside simulation).
"""

import math
from collections import Counter
from typing import Any

SCHEMA = 1
DISTILLATIONS = ("fine-tuning", "multi-teacher", "specific-teacher")
METHODS = (
    *("local-own", "local-all", "ensemble"),
    *(f"{source}-{distillation}" for source in ("prompts-only", "fedlmg") for distillation in DISTILLATIONS),
    "centralised",
)
"""The order in which methods are shown; others come before `centralised`."""
TITLES = {
    "local-own": "local (own test set)",
    "local-all": "local (all test sets)",
    "centralised": "centralised (upper bound)",
}
"""Methods whose name alone does not say on which images or for what they stand."""
TEACHER = {"quality": None, "weight": 1.0, "weight_reason": ""}
"""A client without a teacher score."""
UNKNOWN = {"own_accuracy_all_clients": None, "images": None, "membership": None, "privacy": None}
CONFUSION: dict[str, Any] = {"class_names": [], "counts": [], "per_client": {}}
CLIENT_ACCURACIES = ("own_accuracy", "own_accuracy_all_clients", "aggregated_accuracy")


def build(
    *,
    seed: int,
    config: dict,
    clients: dict,
    aggregated: dict,
    methods: dict,
    synthesis: dict,
    stages: dict,
    missing: dict,
    refused: dict | None = None,
    unevaluated: dict | None = None,
    matrix: dict | None = None,
    confusion: dict | None = None,
) -> dict:
    """The content of results.json, methods in the order they are shown.

    Parameters
    ----------
    config: the run's flat config.
    clients: name -> architecture, num_examples, upload_bytes, own_accuracy (on the client's own test images),
        aggregated_accuracy (the returned model on them) and, where measured, own_accuracy_all_clients; as a teacher,
        quality (0 chance, 1 perfect, None unknown), weight in [0, 1] and weight_reason (why not 1); images, numbers
        of its synthetic images: generated, read_as_asked by its classifier, kept to learn; membership, what the client
        says that its upload gives away: auc and tpr_at_1_percent_fpr; privacy, its budget: epsilon and delta.
    aggregated: aggregation, architecture, accuracy (mean over the clients' test sets).
    methods: name -> accuracy and per_client (client -> accuracy), or None where not measured.
    synthesis: num_images, seconds, images_per_second, and rejected: client -> class -> reason -> number of images.
    stages: name -> seconds.
    missing, refused, unevaluated: client -> why no upload of it came; what is wrong with the one that came; why it did
        not measure the returned model. Together with `clients` they make `outcomes`, what became of each.
    matrix: client -> its own model's accuracy on each client's test images.
    confusion: of the aggregated model, as `compare.confusion_of_returned_model` returns it.

    Raises
    ------
    ValueError: a key is missing or a value out of range; the message names the key.
    """
    results = {
        "schema": SCHEMA,
        "seed": seed,
        "config": dict(config),
        "clients": {name: {**TEACHER, **UNKNOWN, **client} for name, client in clients.items()},
        "aggregated": dict(aggregated),
        "methods": {name: methods[name] for name in sorted(methods, key=_place) if methods[name] is not None},
        "synthesis": {"rejected": {}, **synthesis},
        "stages": dict(stages),
        "missing": {**missing, **(refused or {})},
        "outcomes": _outcomes(list(clients), missing, refused or {}, unevaluated or {}),
        "matrix": matrix or {},
        "confusion": confusion,
    }
    check(results)
    return results


def _outcomes(answered: list[str], missing: dict, refused: dict, unevaluated: dict) -> dict[str, dict]:
    states = {"answered": dict.fromkeys(answered, ""), "not evaluated": unevaluated}
    states |= {"missing": missing, "refused": refused}
    return {
        name: {"state": state, "reason": reason}
        for state, reasons in states.items()
        for name, reason in reasons.items()
    }


def check(results: dict) -> None:
    """Raises ValueError, naming the key, unless `results` is what `build` returns."""
    keys = ("schema", "seed", "config", "clients", "aggregated", "methods", "synthesis", "stages", "missing")
    _require(results, (*keys, "matrix", "confusion"), "")
    if results["schema"] != SCHEMA:
        raise ValueError(f"results.json has schema {results['schema']!r}; this version reads {SCHEMA}")
    for name, client in results["clients"].items():
        _require(
            client,
            ("architecture", "num_examples", "upload_bytes", "images", *TEACHER, *CLIENT_ACCURACIES),
            f"clients.{name}.",
        )
        for key in ("quality", "weight", *CLIENT_ACCURACIES):
            _accuracy(client[key], f"clients.{name}.{key}")
        for key in ("num_examples", "upload_bytes"):
            _amount(client[key], f"clients.{name}.{key}")
        for key, value in (client["images"] or {}).items():
            _amount(value, f"clients.{name}.images.{key}")
    for name, row in results["matrix"].items():
        for client, value in row.items():
            _accuracy(value, f"matrix.{name}.{client}")
    _require(results["confusion"] or CONFUSION, tuple(CONFUSION), "confusion.")
    _require(results["aggregated"], ("aggregation", "architecture", "accuracy"), "aggregated.")
    _accuracy(results["aggregated"]["accuracy"], "aggregated.accuracy")
    for name, method in results["methods"].items():
        _require(method, ("accuracy", "per_client"), f"methods.{name}.")
        _accuracy(method["accuracy"], f"methods.{name}.accuracy")
        for client, value in method["per_client"].items():
            _accuracy(value, f"methods.{name}.per_client.{client}")
    _require(results["synthesis"], ("num_images", "seconds", "images_per_second"), "synthesis.")
    for section in ("synthesis", "stages"):
        for key, value in results[section].items():
            if key != "rejected":
                _amount(value, f"{section}.{key}")
    for client, classes in results["synthesis"].get("rejected", {}).items():
        for name, reasons in classes.items():
            for reason, count in reasons.items():
                _amount(count, f"synthesis.rejected.{client}.{name}.{reason}")


def rejections(results: dict) -> dict[str, dict[str, int]]:
    """Client -> reason -> number of images, over its classes."""
    return {
        client: dict(sum((Counter(reasons) for reasons in classes.values()), Counter()))
        for client, classes in results["synthesis"].get("rejected", {}).items()
    }


def points(accuracy: float | None, reference: float | None) -> str:
    """Difference in percentage points with its sign; a dash where either is not measured."""
    if accuracy is None or reference is None:
        return "\N{EN DASH}"
    return f"{100 * (accuracy - reference):+.1f}".replace("-", "\N{MINUS SIGN}")


def best(results: dict, client: str | None = None) -> float | None:
    """Highest accuracy of any method, for one client or on average, except `centralised`, which sees real data."""
    found = [method for name, method in results["methods"].items() if name != "centralised"]
    values = [method["per_client"].get(client) if client is not None else method["accuracy"] for method in found]
    return max((value for value in values if value is not None), default=None)


def title_method(method: str) -> str:
    """The method's name as tables and plots show it."""
    return TITLES.get(method, method)


def _place(method: str) -> float:
    return METHODS.index(method) if method in METHODS else len(METHODS) - 1.5


def _require(section: dict, keys: tuple[str, ...], prefix: str) -> None:
    for key in keys:
        if key not in section:
            raise ValueError(f"results lack '{prefix}{key}'")


def _accuracy(value: Any, key: str) -> None:
    if value is not None and not (_is_number(value) and 0 <= value <= 1):
        raise ValueError(f"results: '{key}' is {value!r}; an accuracy is a fraction between 0 and 1")


def _amount(value: Any, key: str) -> None:
    if not (_is_number(value) and value >= 0 and math.isfinite(value)):
        raise ValueError(f"results: '{key}' is {value!r}; it must be a number, at least 0")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
