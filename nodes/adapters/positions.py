"""Gives a Qwen-Image MODEL the layer positions of MSRoPE-BiL, without touching ComfyUI's code.

Two parts: a wrapper around the diffusion model reads the layout of each call (how many layers, how large, how much
text), and an object patch replaces the position embedder by one that takes the wrapper's positions instead of the
native ones while that call runs. Both belong to the clone they were put on; the model it came from stays as it was.

ComfyUI's own indices are wrong for this model: with two targets an input shares the second target's index, odd patch
counts are centred one patch off, and the text starts inside large inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.model_base import QwenImage
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.model.rope import layer_positions
from ...omnialpha.model.sampling import model_time

_KEY = "omnialpha_positions"
_EMBEDDER = "diffusion_model.pe_embedder"

# Positions [tokens, 3] of the call that runs; each thread has its own, should a model run on several devices at once.
_current: ContextVar[Tensor | None] = ContextVar("omnialpha_positions", default=None)


def install(model: ModelPatcher, axis: str = "bil") -> ModelPatcher:
    """A clone of a MODEL that places its tokens by `layer_positions`.

    Args:
        model: any MODEL of Qwen-Image's architecture, from any loader.
        axis: "bil", or "2d" for the ablation without a layer axis.

    Raises:
        OmniAlphaError: a model of another architecture.
    """
    check_model(model)
    clone = model.clone()
    embedder = clone.get_model_object(_EMBEDDER)
    if not isinstance(embedder, LayerEmbedder):
        clone.add_object_patch(_EMBEDDER, LayerEmbedder(embedder))
    clone.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, _KEY)
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _KEY, LayoutReader(axis))
    return clone


def is_installed(model: ModelPatcher) -> bool:
    """Was this MODEL patched by `install`?"""
    return bool(model.get_wrappers(WrappersMP.DIFFUSION_MODEL, _KEY))


def check_model(model: ModelPatcher) -> None:
    """Makes sure that a MODEL is a Qwen-Image transformer.

    ComfyUI derives other models from its QwenImage, Mage-Flow for one, so the transformer inside has a say as well.

    Raises:
        OmniAlphaError: it is something else; the message says what.
    """
    transformer = getattr(model.model, "diffusion_model", None)
    if not (isinstance(model.model, QwenImage) and isinstance(transformer, QwenImageTransformer2DModel)):
        raise OmniAlphaError(
            f"This MODEL is a {type(model.model).__name__} with a {type(transformer).__name__}; OmniAlpha works on "
            f"Qwen-Image-Edit-2509. Load that with 'Load Diffusion Model' and its OmniAlpha LoRA, or use "
            f"'OmniAlpha Load Checkpoint'."
        )


class LayerEmbedder(nn.Module):
    """Stands in for `pe_embedder`: passes through, except within `using`.

    The original is kept out of the module tree, so that state dicts and the memory manager see no difference.
    """

    def __init__(self, original: nn.Module):
        super().__init__()
        self.original: Callable[[Tensor], Tensor]  # a module that this one must not own
        object.__setattr__(self, "original", original)

    def forward(self, ids: Tensor) -> Tensor:
        """Native positions [B, tokens, 3] -> whatever the original embedder returns, for ours."""
        positions = _current.get()
        if positions is None:
            return self.original(ids)
        if positions.shape[0] != ids.shape[1]:
            raise OmniAlphaError(
                f"The model runs on {ids.shape[1]} tokens where {positions.shape[0]} belong to the text, the layers to "
                f"make and the input layers. Another extension added or removed some; remove its patch from this MODEL."
            )
        return self.original(positions.to(ids.device)[None].expand(ids.shape[0], -1, -1))


@contextmanager
def using(positions: Tensor) -> Iterator[None]:
    """Place tokens at `positions` [tokens, 3] within this block."""
    token = _current.set(positions)
    try:
        yield
    finally:
        _current.reset(token)


class LayoutReader:
    """DIFFUSION_MODEL wrapper: works out the layout of one call, sets its positions and rounds its time."""

    def __init__(self, axis: str):
        self.axis = axis

    def __call__(self, executor, x: Tensor, timestep: Tensor, context: Tensor, *args, **kwargs) -> Tensor:
        """Runs the model: x [B, 16, m, h, w], context [B, L, D], `ref_latents` a list of [B, 16, frames, a, b]."""
        model = executor.class_obj
        if not isinstance(model.pe_embedder, LayerEmbedder):
            raise OmniAlphaError(
                "Another extension replaced the position embedder of this MODEL after OmniAlpha. "
                "Put 'OmniAlpha Patch Model' behind its node."
            )
        _check_context(context, model)
        references = _argument(model.forward, "ref_latents", x, timestep, context, *args, **kwargs) or []
        patch = model.patch_size
        targets = _extents(x, patch)
        inputs = [extent for latent in references for extent in _extents(latent, patch)]
        with using(_positions(tuple(targets), tuple(inputs), context.shape[1], self.axis)):
            return executor(x, model_time(timestep), context, *args, **kwargs)


def _extents(latent: Tensor, patch: int) -> list[tuple[int, int]]:
    """(rows, columns) in patches of every layer in a latent: one per frame. The model pads odd sides up."""
    frames = latent.shape[2] if latent.ndim == 5 else 1
    return [(-(-latent.shape[-2] // patch), -(-latent.shape[-1] // patch))] * frames


def _argument(forward, name: str, *args, **kwargs):
    """What a call of `forward` passes as `name`, wherever this release of ComfyUI has it."""
    return inspect.signature(forward).bind(*args, **kwargs).arguments.get(name)


def _check_context(context: Tensor, model: QwenImageTransformer2DModel) -> None:
    wanted = model.txt_norm.weight.shape[0]
    if context.shape[-1] != wanted:
        raise OmniAlphaError(
            f"The text embeddings have {context.shape[-1]} values per token, this MODEL reads {wanted}: CLIP and MODEL "
            f"come from different checkpoints. Load both from the same one."
        )


# A run asks for the same two layouts (with and without the prompt) in every step.
@lru_cache(maxsize=8)
def _positions(targets: tuple, inputs: tuple, text_length: int, axis: str) -> Tensor:
    with torch.inference_mode(False):
        return layer_positions(targets, inputs, text_length, axis)
