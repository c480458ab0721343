"""DiT: classes by their labels."""

from collections.abc import Sequence

import torch

from fedlmg_server.diffusion.conditioning import Arguments, Conditioning, label_ids
from fedlmg_server.diffusion.families.family import Family


class Adapter(Family):
    """The label that the pipeline's `id2label` gives each class; the last embedding stands for no class."""

    patch = 2

    def make_condition(self) -> Conditioning:
        def labels(class_names: list[str], seeds: Sequence[int] = ()) -> Arguments:
            without = [self.config.num_embeds_ada_norm] * len(class_names)
            ids = without + label_ids(class_names, self.pipeline.labels)
            return {"class_labels": torch.tensor(ids, device=self.pipeline.device)}

        return labels
