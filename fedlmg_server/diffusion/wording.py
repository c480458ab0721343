"""The prompts of a run: one or several for each class, and one that says what no image shall show."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.config.synthesis import CLASS, PROMPT, SynthesisConfig, parse_prompts, split_prompts
from common.labels.names import fold_name


@dataclass(frozen=True)
class Wording:
    """How classes are put into words; the default is the paper's (section 3; the authors' code)."""

    template: str = PROMPT
    own: Mapping[str, list[str]] = field(default_factory=dict)
    """Folded class name -> its own prompts."""
    negative: str = ""
    """The prompt from which classifier-free guidance leads away."""

    @classmethod
    def of(cls, config: SynthesisConfig) -> "Wording":
        return cls(config.prompt, parse_prompts(config.class_prompts), config.negative_prompt)

    def prompts(self, class_name: str) -> list[str]:
        """All prompts of a class, at least one."""
        own = self.own.get(fold_name(class_name))
        return own or [each.replace(CLASS, class_name.lower()) for each in split_prompts(self.template)]

    def prompt(self, class_name: str, seed: int = 0) -> str:
        """The prompt of an image with this seed: a class's prompts are equally frequent."""
        prompts = self.prompts(class_name)
        return prompts[seed % len(prompts)]
