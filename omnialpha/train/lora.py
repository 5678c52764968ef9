"""LoRA through peft: adapters on the transformer, and a file that our pipeline and ComfyUI read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..errors import OmniAlphaError
from ..files.writing import write_tensors
from .config import LoraConfig
from .state import whole

ADAPTER = "default"
METADATA = "lora_adapter_metadata"  # where diffusers looks for rank and alpha


def add_lora(transformer: Any, config: LoraConfig) -> None:
    """Put adapters on every linear layer whose name ends in one of `config.targets`; alpha = rank, so the scale is 1.

    The transformer's own weights are frozen; adapters are float32 and start as no change.

    Raises:
        OmniAlphaError: a target names no layer.
    """
    from peft import LoraConfig as PeftConfig

    linear = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    nowhere = [end for end in config.targets if not any(name.endswith(end) for name in linear)]
    if nowhere:
        raise OmniAlphaError(f"lora.targets: no layer's name ends in {nowhere[0]!r}. There are, for one: {linear[-3]}.")
    transformer.add_adapter(
        PeftConfig(r=config.rank, lora_alpha=config.rank, target_modules=list(config.targets), init_lora_weights=True),
        adapter_name=ADAPTER,
    )
    for param in transformer.parameters():
        if param.requires_grad:
            param.data = param.data.float()


def lora_tensors(transformer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapters under diffusers' names, with alpha beside each pair: `transformer.<layer>.lora_A.weight`."""
    tensors = {}
    for name, param in transformer.named_parameters():
        for side in ("lora_A", "lora_B"):
            mark = f".{side}.{ADAPTER}.weight"
            if name.endswith(mark):
                stem = f"transformer.{name.removesuffix(mark)}"
                tensors[f"{stem}.{side}.weight"] = whole(param)
                # Loaders that know no metadata take alpha / rank from this tensor, and 1 where it is missing.
                if side == "lora_A":
                    tensors[f"{stem}.alpha"] = torch.tensor(float(param.shape[0]))
    return tensors


def write_lora(transformer: torch.nn.Module, config: LoraConfig, path: Path, main: bool = True) -> None:
    """Write the adapters, rank and alpha recorded, whole or not at all. Every process has to call it; one writes."""
    tensors = lora_tensors(transformer)
    note = {
        "transformer.r": config.rank,
        "transformer.lora_alpha": config.rank,
        "transformer.target_modules": list(config.targets),
    }
    if main:
        write_tensors(path, tensors, {"format": "pt", METADATA: json.dumps(note)})
