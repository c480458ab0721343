"""The yardstick: the authors' loop, one image at a time, as their script runs it (paper's code, `generate_images.py`).

What makes it slow is kept: a batch of one, hooks that record every BatchNorm, moments and losses image by image, a
second denoiser pass a step, an ancestral sampler, gradients through both branches of classifier-free guidance. What
makes it wrong is not: the last step's stale estimate, saturated pixels without a gradient.
"""

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline

from common.models.feature_statistics import FeatureStatistics
from common.vision.preprocessing import PreprocessSpec
from fedlmg_server.diffusion.backend import straight_through_clamp
from fedlmg_server.diffusion.wording import Wording

GUIDANCE_SCALE, STATISTICS_WEIGHT, ETA = 3.0, 0.1, 1.0
NUM_INFERENCE_STEPS, NOISE_EDITING_STEPS = 50, 10


class ReferenceLoop:
    """One classifier, one pipeline, one image a call."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        classifier: torch.nn.Module,
        preprocess: PreprocessSpec,
        target_statistics: FeatureStatistics,
    ):
        self.pipeline, self.classifier, self.preprocess = pipeline, classifier, preprocess
        self.target_statistics = target_statistics
        self.scheduler = DDPMScheduler.from_config(
            pipeline.scheduler.config, variance_type="fixed_small", clip_sample=False
        )
        self.inputs: dict[str, torch.Tensor] = {}
        for name, layer in classifier.named_modules():
            if name in target_statistics:
                layer.register_forward_pre_hook(lambda _, inputs, name=name: self.inputs.update({name: inputs[0]}))

    def draw(
        self,
        class_name: str,
        target: int,
        x_t: torch.Tensor,
        generator: torch.Generator,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        noise_editing_steps: int = NOISE_EDITING_STEPS,
    ) -> torch.Tensor:
        """Image (1, 3, h, w) in [0, 1]; `target` is the classifier's index of the class, `x_t` the initial noise."""
        self.scheduler.set_timesteps(num_inference_steps, device=x_t.device)
        states, empty = self.pipeline.encode_prompt(Wording().prompt(class_name), x_t.device, 1, True)
        states = torch.cat([empty, states])
        T = self.scheduler.timesteps[0]
        for _ in range(noise_editing_steps):
            x_t = x_t.detach().requires_grad_()
            images = self._decode(self._clean(x_t, self._noise(x_t, T, states), T))
            self.classifier(self.preprocess(images))
            loss = STATISTICS_WEIGHT * self._statistics_loss()
            x_t = x_t - ETA * torch.autograd.grad(loss, x_t)[0]
        for t in self.scheduler.timesteps:
            x_t = x_t.detach().requires_grad_()
            images = self._decode(self._clean(x_t, self._noise(x_t, t, states), t))
            logits = self.classifier(self.preprocess(images))
            loss = (
                F.cross_entropy(logits, torch.tensor([target], device=x_t.device))
                + STATISTICS_WEIGHT * self._statistics_loss()
            )
            x_t = (x_t - torch.autograd.grad(loss, x_t)[0]).detach()
            with torch.no_grad():
                velocity_or_noise = self._output(x_t, t, states)
            x_t = self.scheduler.step(velocity_or_noise, t, x_t, generator=generator).prev_sample
        with torch.no_grad():
            return self._decode(x_t)

    def _output(self, x_t: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        without, given = self.pipeline.unet(torch.cat([x_t, x_t]).to(states.dtype), t, states).sample.float().chunk(2)
        return without + GUIDANCE_SCALE * (given - without)

    def _noise(self, x_t: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        output, abar = self._output(x_t, t, states), self.scheduler.alphas_cumprod.to(t.device)[t]
        if self.scheduler.config.prediction_type == "v_prediction":
            return abar.sqrt() * output + (1 - abar).sqrt() * x_t
        return output

    def _clean(self, x_t: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = self.scheduler.alphas_cumprod.to(t.device)[t]
        return (x_t - (1 - abar).sqrt() * noise) / abar.sqrt()

    def _decode(self, x_0: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        images = vae.decode((x_0 / vae.config.scaling_factor).to(vae.dtype)).sample.float()
        return straight_through_clamp(images / 2 + 0.5)

    def _statistics_loss(self) -> torch.Tensor:
        total = 0.0
        for name, features in self.inputs.items():
            dims = (0, 2, 3)
            target = self.target_statistics[name]
            total = total + (features.mean(dims) - target.mean).norm()
            total = total + (features.var(dims, correction=0) - target.variance).norm()
        return total
