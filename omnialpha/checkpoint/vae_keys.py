"""The RGBA VAE's weights: its two key layouts, and opaque initialisation from an RGB VAE (paper section 3.2.1).

Files of this VAE name their tensors either as diffusers does or as Wan's original code (and ComfyUI's loader) does. The
tensors are the same; going from one to the other is a pure rename.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import OmniAlphaError
from ..json_files import read_json
from .weights import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")  # a tensor, or what a file's header says of it

LATENT_CHANNELS = 16
STATISTICS = ("latents_mean", "latents_std")  # of each latent channel, in the VAE's config.json
# Beyond these a mean or a deviation is damage: latents divided by such a number have no digits left in float32.
_LARGEST, _SMALLEST = 1e6, 1e-6

# The one architecture of Qwen-Image and Wan 2.1: four resolutions, two residual blocks each, one more when decoding.
LEVELS = 4
BLOCKS = 2

# Keys that together occur in one layout only, and in no other kind of VAE.
_MARKS = {
    "diffusers": ("encoder.conv_in.weight", "encoder.down_blocks.0.norm1.gamma", "decoder.norm_out.gamma"),
    "wan": ("encoder.conv1.weight", "encoder.downsamples.0.residual.0.gamma", "decoder.head.0.gamma"),
}

# First and last convolution of each layout: the only two that see the picture's channels.
_PICTURE_CONVOLUTIONS = {
    "diffusers": ("encoder.conv_in", "decoder.conv_out"),
    "wan": ("encoder.conv1", "decoder.head.2"),
}


def key_layout(weights: Collection[str]) -> str | None:
    """How a file names its tensors.

    Args:
        weights: a state dict, or only its keys.

    Returns:
        "diffusers", "wan", or None for something that is not Qwen-Image's or Wan 2.1's VAE.
    """
    return next((name for name, marks in _MARKS.items() if all(mark in weights for mark in marks)), None)


def to_wan(weights: Mapping[str, T]) -> dict[str, T]:
    """The same tensors under Wan's names, which ComfyUI's loader wants. Takes either layout.

    Raises:
        OmniAlphaError: not this VAE, or a key that it does not have.
    """
    return _renamed(weights, "wan")


def to_diffusers(weights: Mapping[str, T]) -> dict[str, T]:
    """The same tensors under diffusers' names. Takes either layout.

    Raises:
        OmniAlphaError: not this VAE, or a key that it does not have.
    """
    return _renamed(weights, "diffusers")


def channels(weights: Mapping[str, Tensor | TensorInfo]) -> tuple[int, int]:
    """Picture channels that the VAE reads and writes, from the tensors: config files have been seen to be wrong.

    Raises:
        OmniAlphaError: not this VAE.
    """
    first, last = _PICTURE_CONVOLUTIONS[_layout(weights)]
    try:
        return weights[f"{first}.weight"].shape[1], weights[f"{last}.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise OmniAlphaError(f"The VAE's first or last convolution is missing or damaged ({error}).") from error


def is_rgba(weights: Mapping[str, Tensor | TensorInfo]) -> bool:
    """Does the VAE read and write four channels?

    Raises:
        OmniAlphaError: not this VAE.
    """
    return channels(weights) == (4, 4)


def opaque_initialise(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An RGBA VAE that starts as the given RGB VAE and takes every picture for opaque.

    The encoder ignores alpha (zero weights), the decoder answers 1 everywhere (zero weights, bias 1), and colours go
    through as before. The other tensors are shared, not copied.

    Args:
        weights: an RGB VAE in either layout.

    Returns:
        The RGBA VAE in the same layout and precision.

    Raises:
        OmniAlphaError: not this VAE, or not three channels.
    """
    import torch

    found = channels(weights)
    if found != (3, 3):
        raise OmniAlphaError(
            f"Opaque initialisation starts from an RGB VAE with 3 channels; this one reads {found[0]} and writes "
            f"{found[1]}." + (" It is an RGBA VAE already." if found == (4, 4) else "")
        )
    first, last = _PICTURE_CONVOLUTIONS[_layout(weights)]
    reads, writes, bias = (weights[key] for key in (f"{first}.weight", f"{last}.weight", f"{last}.bias"))
    return {
        **weights,
        f"{first}.weight": torch.cat([reads, torch.zeros_like(reads[:, :1])], dim=1),
        f"{last}.weight": torch.cat([writes, torch.zeros_like(writes[:1])]),
        f"{last}.bias": torch.cat([bias, torch.ones_like(bias[:1])]),
    }


def _layout(weights: Collection[str]) -> str:
    layout = key_layout(weights)
    if layout is None:
        sample = ", ".join(list(weights)[:3]) or "nothing"
        raise OmniAlphaError(
            f"This is not the VAE of Qwen-Image or Wan 2.1 (found keys such as {sample}). Expected "
            f"rgba_vae/diffusion_pytorch_model.safetensors, or the same in Wan's key layout."
        )
    return layout


def _renamed(weights: Mapping[str, T], layout: str) -> dict[str, T]:
    """`weights` with its keys in `layout`, in the order of the file."""
    if _layout(weights) == layout:
        return dict(weights)
    names = dict(_module_names()) if layout == "wan" else {wan: ours for ours, wan in _module_names()}
    renamed = {}
    for key, tensor in weights.items():
        module, _, leaf = key.rpartition(".")
        if module not in names:
            raise OmniAlphaError(f"The VAE has a tensor '{key}' that Qwen-Image's VAE does not have.")
        renamed[f"{names[module]}.{leaf}"] = tensor
    return renamed


def _module_names() -> Iterator[tuple[str, str]]:
    """(diffusers, Wan) name of every module that may hold tensors."""
    yield "quant_conv", "conv1"
    yield "post_quant_conv", "conv2"
    for side in ("encoder", "decoder"):
        yield f"{side}.conv_in", f"{side}.conv1"
        yield from _residual(f"{side}.mid_block.resnets.0", f"{side}.middle.0")
        for part in ("norm", "to_qkv", "proj"):
            yield f"{side}.mid_block.attentions.0.{part}", f"{side}.middle.1.{part}"
        yield from _residual(f"{side}.mid_block.resnets.1", f"{side}.middle.2")
        yield f"{side}.norm_out", f"{side}.head.0"
        yield f"{side}.conv_out", f"{side}.head.2"
    # Both layouts number the encoder's blocks straight through, resampling included; diffusers nests the decoder's.
    for index in range(LEVELS * (BLOCKS + 1) - 1):
        flat = f"encoder.down_blocks.{index}", f"encoder.downsamples.{index}"
        yield from _resample(*flat) if index % (BLOCKS + 1) == BLOCKS else _residual(*flat)
    for level in range(LEVELS):
        start = level * (BLOCKS + 2)
        for block in range(BLOCKS + 1):
            yield from _residual(f"decoder.up_blocks.{level}.resnets.{block}", f"decoder.upsamples.{start + block}")
        yield from _resample(f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.upsamples.{start + BLOCKS + 1}")


def _residual(ours: str, wan: str) -> Iterator[tuple[str, str]]:
    for part, index in (("norm1", 0), ("conv1", 2), ("norm2", 3), ("conv2", 6)):
        yield f"{ours}.{part}", f"{wan}.residual.{index}"
    yield f"{ours}.conv_shortcut", f"{wan}.shortcut"


def _resample(ours: str, wan: str) -> Iterator[tuple[str, str]]:
    for part in ("resample.1", "time_conv"):
        yield f"{ours}.{part}", f"{wan}.{part}"


def read_statistics(folder: Path) -> Mapping[str, list[float]]:
    """`latents_mean` and `latents_std` of the VAE in a folder; empty where its config.json says nothing.

    Raises:
        OmniAlphaError: see `check_statistics`; or not a JSON object.
    """
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    if "AutoencoderKL" not in str(config.get("_class_name", "")):
        return {}  # somebody else's config, in a folder of many files
    return check_statistics({key: config[key] for key in STATISTICS if config.get(key) is not None}, str(path))


def check_statistics(
    statistics: Mapping[str, list[float]], source: str, count: int = LATENT_CHANNELS
) -> Mapping[str, list[float]]:
    """`statistics` themselves, if latents can be normalised by them; both or none.

    Args:
        statistics: name (see `STATISTICS`) -> numbers.
        source: how messages call the file.
        count: latent channels of the VAE.

    Raises:
        OmniAlphaError: one without the other, not `count` numbers each, or numbers that nothing can be divided by.
    """
    if absent := [key for key in STATISTICS if key not in statistics][: len(statistics)]:
        raise OmniAlphaError(f"{source} has no {absent[0]}, which goes with its {next(iter(statistics))}.")
    for key, values in statistics.items():
        if not isinstance(values, list | tuple) or len(values) != count:
            found = f"{len(values)} values" if isinstance(values, list | tuple) else repr(values)[:80]
            raise OmniAlphaError(f"{source} has {key} = {found}; expected {count} numbers.")
        least = _SMALLEST if key == "latents_std" else -_LARGEST
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= _LARGEST:
                raise OmniAlphaError(
                    f"{source} has {value!r} in {key}; expected numbers from {least:g} to {_LARGEST:g}. "
                    f"Fetch the file again."
                )
    return statistics
