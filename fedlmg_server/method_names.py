"""The names of the methods that a run compares: their order, their titles, and which are upper bounds."""

DISTILLATIONS = ("fine-tuning", "multi-teacher", "specific-teacher")
"""Values of the config key `aggregation` for which a student is trained."""
METHODS = (
    *("local-own", "local-all", "ensemble"),
    *(
        "general",
        "general-stain-normalised",
        "general-same-seconds",
        "general-same-updates",
        "general-multi-teacher",
        "no-federation",
        "no-federation-all",
    ),
    *(f"prompts-only-{distillation}" for distillation in DISTILLATIONS),
    "prompts-only-same-seconds",
    *(f"fedlmg-{distillation}" for distillation in DISTILLATIONS),
    *("fedlmg-merge", "personal", "personal-all"),
    *("centralised-with-general", "centralised"),
)
"""The order in which methods are shown; others come before the upper bounds."""
UPPER_BOUNDS = ("centralised-with-general", "centralised")
"""Methods that see the clients' real images, so that they are never the best."""
TITLES = {
    "local-own": "local (own test set)",
    "local-all": "local (all test sets)",
    "general": "general (no client)",
    "general-stain-normalised": "general (no client, stain normalised)",
    "general-same-seconds": "general (no client, same seconds)",
    "general-same-updates": "general (no client, same updates)",
    "general-multi-teacher": "multi-teacher on general images",
    "no-federation": "no federation (own test set)",
    "no-federation-all": "no federation (all test sets)",
    "prompts-only-same-seconds": "prompts-only (same seconds)",
    "personal": "personal (own test set)",
    "personal-all": "personal (all test sets)",
    "centralised-with-general": "centralised with general (upper bound)",
    "centralised": "centralised (upper bound)",
}
"""Methods whose name alone does not say on which images or for what they stand."""


def title_method(method: str) -> str:
    """The method's name as tables and plots show it."""
    return TITLES.get(method, method)


def place_method(method: str) -> float:
    """A number by which methods are put in the order of `METHODS`."""
    return METHODS.index(method) if method in METHODS else len(METHODS) - len(UPPER_BOUNDS) - 0.5
