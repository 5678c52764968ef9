"""The state of a training run on disk: safetensors and JSON, written whole or not at all, never pickled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import OmniAlphaError
from ..files.writing import DiskError, write_json, write_tensors
from ..json_files import read_json

KEEP = 2  # newest states on disk: should the last one be damaged, there is one more
NOTE = "state.json"  # written last; a folder without it does not count


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of a safetensors file, one in memory at a time."""
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a dict
            yield key, file.get_tensor(key)


def save_state(folder: Path, step: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], note: dict) -> Path:
    """Write `folder/step-########` with one safetensors file per entry of `tensors`; drop all but the newest two.

    Raises:
        DiskError: it cannot be written; earlier states are intact.
    """
    final, part = folder / f"step-{step:08d}", folder / f".step-{step:08d}.tmp"
    try:
        shutil.rmtree(part, ignore_errors=True)
        for name, state in tensors.items():
            write_tensors(part / f"{name}.safetensors", state)
        write_json(part / NOTE, {"step": step, **note})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
    except (OSError, DiskError) as error:
        shutil.rmtree(part, ignore_errors=True)
        old = states(folder)
        raise DiskError(
            f"The state at step {step} cannot be written: {error} It goes on from "
            f"{f'step {old[-1][0]}' if old else 'the start'}."
        ) from error
    for _, path in states(folder)[:-KEEP]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def states(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every complete state, oldest first."""
    found = [path for path in folder.glob("step-*") if (path / NOTE).is_file()]
    return sorted((int(path.name.removeprefix("step-")), path) for path in found)


def find_state(folder: Path) -> tuple[dict[str, Path], dict] | None:
    """The newest state that can be read, as (file by entry, note); None where there is none at all.

    Raises:
        OmniAlphaError: there are states, and not one of them can be read.
    """
    problem = None
    for _, path in reversed(states(folder)):
        try:
            note = read_json(path / NOTE)
            files = {file.stem: file for file in sorted(path.glob("*.safetensors"))}
            for file in files.values():  # a torn file's length does not fit its header
                safe_open(file, "pt")
            return files, note
        except (OSError, OmniAlphaError, SafetensorError) as error:
            problem = f"{path}: {error}"
    if problem:
        raise OmniAlphaError(f"No saved state can be read ({problem}). Start anew with another --out.")
    return None


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that sharded training (FSDP) has spread over processes, gathered; every process has to call it."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def gathered(tensors: Mapping[str, torch.Tensor], main: bool = True) -> dict[str, torch.Tensor]:
    """Whole tensors on the CPU, for the process that writes; nothing for the others, who have to call it too."""
    result = {}
    for name, tensor in tensors.items():  # one at a time: a spread model may fit no single device
        value = whole(tensor.detach())
        if main:
            result[name] = value.cpu()
    return result


def like(value: torch.Tensor, tensor: Any) -> torch.Tensor:
    """A whole value on the device of `tensor`, and spread over processes as it is."""
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return value.to(tensor.device)


@torch.no_grad()
def fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole value into a tensor that may be spread over processes."""
    tensor.copy_(like(value, tensor))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state as flat tensors: "<parameter number>.<entry>"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for index, entries in state.items()
        for key, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """The reverse of `optimizer_tensors`, from a file."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in read_tensors(path):
        index, key = name.split(".", 1)
        param = params[int(index)]
        state.setdefault(int(index), {})[key] = like(value, param) if value.shape == param.shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
