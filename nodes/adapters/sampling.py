"""One sampling run on ComfyUI's samplers: progress, RGBA previews, interrupts."""

from __future__ import annotations

from collections.abc import Callable

import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.model_management import get_torch_device, intermediate_device, throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...omnialpha.checkpoint.vae_keys import LATENT_CHANNELS
from ...omnialpha.model.single_frame import SCALE
from . import guidance, positions

Preview = Callable[[Tensor], tuple]


class RunProgress:
    """A run's progress on its node: the steps of all passes that there may be, then the finishing.

    Args:
        steps: of all passes together.
    """

    def __init__(self, steps: int):
        self.bar, self.steps, self.done = comfy.utils.ProgressBar(steps), steps, 0
        self.finish = None

    def step(self, preview: tuple | None = None) -> None:
        """One more step is done."""
        self.done += 1
        self.bar.update_absolute(self.done, self.steps, preview)

    def finishing(self, share: float) -> None:
        """That share of the finishing is done. Raises where the artist interrupts."""
        throw_exception_if_processing_interrupted()
        # A bar of its own: newer releases hold back what comes soon after the last step.
        bar = self.finish = self.finish or comfy.utils.ProgressBar(100)
        bar.update_absolute(round(100 * share), 100)


def finishing_device() -> torch.device | None:
    """Where to keep pixels: ComfyUI's GPU where it is CUDA; the processor, where they are, elsewhere."""
    device = get_torch_device()
    return device if device.type == "cuda" else None


def ensure_patched(model: ModelPatcher) -> ModelPatcher:
    """A MODEL with layer positions and norm-preserving guidance: itself where the artist has patched it already.

    Raises:
        OmniAlphaError: not a Qwen-Image model.
    """
    positions.check_model(model)
    if positions.is_installed(model):
        return model
    patched = positions.install(model)
    if not guidance.is_installed(patched):
        guidance.install(patched)
    return patched


def empty_latent(targets: int, size: tuple[int, int]) -> dict:
    """LATENT for that many layers of (height, width) pixels: zeros [1, 16, m, h, w]."""
    shape = (1, LATENT_CHANNELS, targets, size[0] // SCALE, size[1] // SCALE)
    return {"samples": torch.zeros(shape, device=intermediate_device())}


def sample(
    model: ModelPatcher,
    latent: Tensor,
    sigmas: Tensor,
    *,
    positive: list,
    negative: list,
    scale: float,
    seed: int,
    sampler: str,
    progress: RunProgress,
    preview: Preview | None = None,
) -> Tensor:
    """RAW latents [1, 16, m, h, w] of one run.

    Args:
        model: patched MODEL.
        latent: zeros [1, 16, m, h, w].
        sigmas: [steps + 1].
        positive: CONDITIONING with reference latents.
        negative: the same for the negative prompt; not evaluated at scale 1.
        scale: guidance.
        seed: of the noise, which ComfyUI and the library draw alike.
        sampler: one of ComfyUI's sampler names.
        progress: told of each step.
        preview: estimate of the clean latents -> preview for the progress bar.
    """
    return comfy.sample.sample_custom(
        model,
        noise=comfy.sample.prepare_noise(latent, seed),
        cfg=scale,
        sampler=comfy.samplers.sampler_object(sampler),
        sigmas=sigmas,
        positive=positive,
        negative=negative,
        latent_image=latent,
        callback=lambda step, estimate, x, steps: progress.step(preview(estimate) if preview else None),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
