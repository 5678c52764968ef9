"""LoRA files for the transformer, in every key style that is about.

A LoRA holds two thin matrices per layer; here their product is added to the weight once, in float32, when the file
is loaded: W + scale * alpha / rank * B @ A (Hu et al., arXiv 2106.09685). That costs nothing while sampling, needs no
further package, and a checkpoint saved afterwards contains it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import read_header, weight_files
from .errors import OmniAlphaError

if TYPE_CHECKING:
    import torch

# What training tools put before a module's name, longest first, and what that style is called.
PREFIXES = {
    "base_model.model.transformer.": "PEFT",
    "base_model.model.": "PEFT",
    "model.diffusion_model.": "ComfyUI",
    "diffusion_model.": "ComfyUI",
    "transformer.": "diffusers",
    "lora_unet_": "kohya",
    "lora_transformer_": "kohya",
}
_DOWN = (".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight")
_UP = (".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight")
_METADATA = "lora_adapter_metadata"  # where diffusers keeps rank and alpha


@dataclass(frozen=True)
class LoraLayer:
    """Where one layer of a LoRA is in its file.

    Attributes:
        down: key of A, [rank, in].
        up: key of B, [out, rank].
        alpha: key of a scalar alpha, None where the metadata or the rank decides.
        rank: inner dimension.
        shape: (out, in) of the product.
    """

    down: str
    up: str
    alpha: str | None
    rank: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Lora:
    """What a LoRA file holds, read from its header alone.

    Attributes:
        path: the file.
        style: key style: "diffusers" (`transformer.` or bare names), "PEFT", "ComfyUI" or "kohya".
        layers: module name (diffusers naming; kohya's has underscores for dots) -> `LoraLayer`.
        strays: keys that belong to no complete pair.
        metadata: the adapter's configuration as diffusers writes it, may be empty.
    """

    path: Path
    style: str
    layers: dict[str, LoraLayer]
    strays: list[str]
    metadata: Mapping = field(default_factory=dict)

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur, ascending."""
        return sorted({layer.rank for layer in self.layers.values()})

    def strength(self, module: str, alpha: float | None) -> float:
        """alpha / rank of one layer, as its file defines it; 1 where it says nothing."""
        rank = self.layers[module].rank
        if alpha is None:
            alpha = self._configured("lora_alpha", module)
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self._configured("use_rslora", module) else rank)

    def _configured(self, key: str, module: str):
        """A value of the adapter's configuration, by module where it differs between modules."""
        config = {name.removeprefix("transformer."): value for name, value in self.metadata.items()}
        for pattern, value in (config.get("alpha_pattern") or {}).items() if key == "lora_alpha" else ():
            if module == pattern or re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return config.get(key)

    def match(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, str], list[str]]:
        """Which layers find their place in a transformer.

        Args:
            shapes: the transformer's tensors, name -> shape, such as "transformer_blocks.0.attn.to_q.weight".

        Returns:
            ({module of the LoRA: name of the weight}, [reason for every layer or key that has no place]).
        """
        names = {name.removesuffix(".weight"): name for name in shapes if name.endswith(".weight")}
        flat = {name.replace(".", "_"): name for name in names} if "kohya" in self.style else {}
        placed, unmatched = {}, [f"{key}: not part of a LoRA pair" for key in self.strays]
        for module, layer in self.layers.items():
            name = names.get(flat.get(module, module))
            if name is None:
                unmatched.append(f"{module}: the transformer has no such layer")
            elif tuple(shapes[name]) != layer.shape:
                unmatched.append(f"{module}: shape {layer.shape}, the transformer's is {tuple(shapes[name])}")
            else:
                placed[module] = name
        return placed, unmatched

    def place(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, str], list[str]]:
        """`match`, for a LoRA that is going to be used.

        Raises:
            OmniAlphaError: not a single layer has a place.
        """
        placed, unmatched = self.match(shapes)
        if not placed:
            raise OmniAlphaError(
                f"{self.path} does not fit this transformer: none of its {len(self.layers)} layers has a place "
                f"({unmatched[0]}). It was made for another model."
            )
        return placed, unmatched


def is_lora(keys) -> bool:
    """Do these tensor names look like a LoRA's?"""
    return any(key.endswith(_DOWN + _UP) for key in keys)


def read_lora(path: str | Path) -> Lora:
    """What a LoRA file holds; no tensor is loaded.

    Raises:
        OmniAlphaError: not a readable safetensors file, not a LoRA, or a kind of LoRA that cannot be added as B @ A.
    """
    file = weight_files(path)[0]
    tensors, metadata = read_header(file)
    other = next((key for key in tensors if re.search(r"dora_scale|magnitude_vector|\.lokr_|\.hada_", key)), None)
    if other:
        raise OmniAlphaError(f"{file} is a DoRA, LoKr or LoHa ({other}); only plain LoRA files can be used.")
    if not is_lora(tensors):
        raise OmniAlphaError(
            f"{file} is not a LoRA: no tensor is named like {_DOWN[0][1:]} or {_DOWN[2][1:]} (found, for example, "
            f"{next(iter(tensors))}). `python -m omnialpha inspect {file}` says what it is."
        )
    layers, strays, styles = {}, [], set()
    for key in tensors:
        down = next((end for end in _DOWN if key.endswith(end)), None)
        if down is None:
            continue
        stem = key.removesuffix(down)
        up = stem + _UP[_DOWN.index(down)]
        a, b = tensors[key].shape, tensors[up].shape if up in tensors else ()
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            strays.append(key)
            continue
        module, style = _plain(stem)
        styles.add(style)
        alpha = f"{stem}.alpha" if f"{stem}.alpha" in tensors else None
        layers[module] = LoraLayer(key, up, alpha, a[0], (b[0], a[1]))
    used = {key for layer in layers.values() for key in (layer.down, layer.up, layer.alpha)}
    strays += [key for key in tensors if key not in used and key not in strays]
    try:
        config = json.loads(metadata.get(_METADATA, "{}"))
    except ValueError as error:
        raise OmniAlphaError(f"{file}: its {_METADATA} is not valid JSON ({error}).") from error
    return Lora(file, " + ".join(sorted(styles)), layers, strays, config if isinstance(config, dict) else {})


def _plain(stem: str) -> tuple[str, str]:
    """(module name without a tool's prefix, style)."""
    for prefix, style in PREFIXES.items():
        if stem.startswith(prefix):
            return stem.removeprefix(prefix), style
    return stem, "diffusers"


def apply_lora(transformer: torch.nn.Module, path: str | Path, scale: float = 1.0) -> list[str]:
    """Adds a LoRA to a transformer's weights, in place.

    Args:
        transformer: QwenImageTransformer2DModel, any dtype and device.
        path: .safetensors file, or a folder with one.
        scale: strength; 1 is as trained.

    Returns:
        What was in the file and has no place in this transformer, in words; empty when all of it was used.

    Raises:
        OmniAlphaError: see `read_lora` and `Lora.place`; or it holds NaN.
    """
    import torch
    from safetensors import safe_open

    lora = read_lora(path)
    weights = dict(transformer.named_parameters())
    placed, unmatched = lora.place({name: tuple(weight.shape) for name, weight in weights.items()})
    with safe_open(lora.path, "pt") as file, torch.no_grad():
        for module, name in placed.items():
            layer, weight = lora.layers[module], weights[name]
            alpha = float(file.get_tensor(layer.alpha)) if layer.alpha else None
            down, up = (file.get_tensor(key).to(weight.device, torch.float32) for key in (layer.down, layer.up))
            delta = scale * lora.strength(module, alpha) * (up @ down)
            if not torch.isfinite(delta).all():
                raise OmniAlphaError(
                    f"{lora.path}: {module} holds NaN or infinity. The file is damaged; fetch it again."
                )
            weight.copy_((weight.float() + delta).to(weight.dtype))
    return unmatched
