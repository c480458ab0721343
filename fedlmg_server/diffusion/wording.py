"""The prompts of a run: one for each class, and one that says what no image shall show."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.config.synthesis import CLASS, PROMPT, SynthesisConfig, parse_prompts
from common.labels.names import fold_name


@dataclass(frozen=True)
class Wording:
    """How classes are put into words; the default is the paper's (section 3; the authors' code)."""

    template: str = PROMPT
    own: Mapping[str, str] = field(default_factory=dict)
    """Folded class name -> its own prompt."""
    negative: str = ""
    """The prompt from which classifier-free guidance leads away."""

    @classmethod
    def of(cls, config: SynthesisConfig) -> "Wording":
        return cls(config.prompt, parse_prompts(config.class_prompts), config.negative_prompt)

    def prompt(self, class_name: str) -> str:
        own = self.own.get(fold_name(class_name))
        return own if own is not None else self.template.replace(CLASS, class_name.lower())
