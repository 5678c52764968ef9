"""LoRA files for the transformer, in every key style that is about.

A LoRA holds two thin matrices per layer; here their product is added to the weight once, in float32, when the file
is loaded: W + scale * alpha / rank * B @ A (Hu et al., arXiv 2106.09685). That costs nothing while sampling, needs no
further package, and a checkpoint saved afterwards contains it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OmniAlphaError
from ..json_files import read_json
from .weights import read_header, weight_files

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
_METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's configuration: rank, alpha and their exceptions
_PEFT_FILE, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT itself writes it beside the file
_PEFT_ALPHA = 8  # where a configuration names none
# PEFT takes any regular expression for a layer's name; one that repeats groups can be made to match for years.
_NAME_PATTERN = re.compile(r"\^?(?:[\w-]|\.\*?|\\\.|\\d\+)*")
_WILDCARDS = 3


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
        config: PEFT's configuration of the adapter, empty where there is none.
    """

    path: Path
    style: str
    layers: dict[str, LoraLayer]
    strays: list[str]
    config: Mapping = field(default_factory=dict)

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur, ascending."""
        return sorted({layer.rank for layer in self.layers.values()})

    def strength(self, module: str, alpha: float | None = None) -> float:
        """By how much the product of one layer is multiplied, as its file defines it; 1 where it says nothing.

        Args:
            module: name of the layer.
            alpha: the file's own tensor for it, which goes before the configuration.
        """
        rank = self.layers[module].rank
        if alpha is not None:
            return alpha / rank
        if not self.config:
            return 1.0
        exceptions = self.config.get("alpha_pattern") or {}
        named = (value for pattern, value in exceptions.items() if re.match(rf"(.*\.)?({pattern})$", module))
        stated = next(named, self.config.get("lora_alpha", _PEFT_ALPHA))
        return stated / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def factors(self, placed: Mapping[str, str]) -> Iterator[tuple[str, float, torch.Tensor, torch.Tensor]]:
        """What to add to which weight: (its name, strength, A [rank, in], B [out, rank]), tensors as they are stored.

        Args:
            placed: module of the LoRA -> name of the weight, see `place`.

        Raises:
            OmniAlphaError: NaN or infinity in a layer.
        """
        import torch
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            for module, name in placed.items():
                layer = self.layers[module]
                down, up = file.get_tensor(layer.down), file.get_tensor(layer.up)
                strength = self.strength(module, file.get_tensor(layer.alpha).item() if layer.alpha else None)
                if not (math.isfinite(strength) and all(torch.isfinite(part.float()).all() for part in (down, up))):
                    raise OmniAlphaError(
                        f"{self.path}: {module} holds NaN or infinity. The file is damaged; fetch it again."
                    )
                yield name, strength, down, up

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
        alpha = f"{stem}.alpha" if f"{stem}.alpha" in tensors and tensors[f"{stem}.alpha"].elements == 1 else None
        layers[module] = LoraLayer(key, up, alpha, a[0], (b[0], a[1]))
    used = {key for layer in layers.values() for key in (layer.down, layer.up, layer.alpha)}
    strays += [key for key in tensors if key not in used and key not in strays]
    return Lora(file, " + ".join(sorted(styles)), layers, strays, _read_config(file, metadata))


def _read_config(file: Path, metadata: Mapping[str, str]) -> dict:
    """PEFT's configuration of the adapter: from the file's metadata, or beside a file that PEFT wrote; may be empty.

    Raises:
        OmniAlphaError: not JSON, or what decides the strength is not what it should be.
    """
    beside = file.with_name(_PEFT_CONFIG)
    if _METADATA in metadata:
        source = f"{file}: its {_METADATA}"
        try:
            config = json.loads(metadata[_METADATA])
        except ValueError as error:
            raise OmniAlphaError(f"{source} is not valid JSON ({error}).") from error
        config = config if isinstance(config, dict) else {}
        # One file may hold adapters of several models, and then says whose each value is.
        ours = {name.removeprefix("transformer."): v for name, v in config.items() if name.startswith("transformer.")}
        config = ours or {name: value for name, value in config.items() if "." not in name}
    elif file.name == _PEFT_FILE and beside.is_file():
        source, config = str(beside), read_json(beside)
    else:
        return {}
    alphas = {"lora_alpha": config.get("lora_alpha", _PEFT_ALPHA)}
    exceptions = config.get("alpha_pattern") or {}
    if not isinstance(exceptions, dict) or not isinstance(config.get("use_rslora") or False, bool):
        raise OmniAlphaError(f"{source} has an alpha_pattern or use_rslora that PEFT does not write.")
    for name, value in {**alphas, **exceptions}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise OmniAlphaError(f"{source} has {name} = {value!r}; expected a number.")
    for pattern in exceptions:
        if not _NAME_PATTERN.fullmatch(pattern) or sum(map(pattern.count, "*+")) > _WILDCARDS:
            raise OmniAlphaError(f"{source} has an alpha_pattern {pattern!r}; expected the name of a layer.")
    return config


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
        OmniAlphaError: see `read_lora`, `Lora.place` and `Lora.factors`.
    """
    import torch

    lora = read_lora(path)
    weights = dict(transformer.named_parameters())
    placed, unmatched = lora.place({name: tuple(weight.shape) for name, weight in weights.items()})
    with torch.no_grad():
        for name, strength, *pair in lora.factors(placed):
            weight = weights[name]
            down, up = (tensor.to(weight.device, torch.float32) for tensor in pair)
            weight.copy_((weight.float() + scale * strength * (up @ down)).to(weight.dtype))
    return unmatched
