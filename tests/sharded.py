"""Trains as `python -m omnialpha` does, with the model spread over CPU processes by configs/accelerate/fsdp.yaml.

accelerate spreads models over GPUs only; the PyTorch underneath does it over CPU processes as well. So the accelerator
is told that it is on one of those machines, and everything from there on is what runs on GPUs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from omnialpha.cli.main import main
from omnialpha.train import transformer

CONFIG = Path(__file__).resolve().parent.parent / "configs/accelerate/fsdp.yaml"


def open_accelerator(precision: str):
    """An Accelerator for CPU processes that takes its FSDP plug-in from the shipped configuration."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType

    given = yaml.safe_load(CONFIG.read_text())["fsdp_config"]
    given = {key.removeprefix("fsdp_"): value for key, value in given.items()}
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=given.pop("version"),
        auto_wrap_policy=given.pop("auto_wrap_policy").lower(),
        transformer_cls_names_to_wrap=[given.pop("transformer_layer_cls_to_wrap")],
        cpu_ram_efficient_loading=given.pop("cpu_ram_efficient_loading"),
        state_dict_type=given.pop("state_dict_type"),
        reshard_after_forward=given.pop("reshard_after_forward"),
    )
    assert not given, f"new in the configuration: {given}"
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator


if __name__ == "__main__":
    transformer.open_accelerator = open_accelerator
    sys.exit(main())
