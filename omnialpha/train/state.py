"""The state of a training run on disk: safetensors and JSON, written whole or not at all, never pickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..errors import OmniAlphaError

KEEP = 2  # newest states on disk: should the last one be damaged, there is one more
NOTE = "state.json"  # written last; a folder without it does not count


def save_state(folder: Path, step: int, tensors: dict[str, dict[str, torch.Tensor]], note: dict) -> Path:
    """Write `folder/step-########` with one safetensors file per entry of `tensors`; drop all but the newest two.

    Raises:
        OmniAlphaError: it cannot be written; earlier states are intact.
    """
    final = folder / f"step-{step:08d}"
    part = folder / f".step-{step:08d}.tmp"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, state in tensors.items():
            state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
            save_file(state, part / f"{name}.safetensors")
        (part / NOTE).write_text(json.dumps({"step": step, **note}, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
    except (OSError, RuntimeError) as error:  # safetensors reports a full disk as one of its own errors
        shutil.rmtree(part, ignore_errors=True)
        raise OmniAlphaError(
            f"The state at step {step} cannot be written to {folder}: {error}. Make room and run the same command again: "
            f"it goes on from {'step ' + str(old[-1][0]) if (old := states(folder)) else 'the start'}."
        ) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        shutil.rmtree(part, ignore_errors=True)
        raise OmniAlphaError(f"The state at step {step} cannot be written to {folder}: {error}.") from error
    for _, old in states(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def states(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every complete state, oldest first."""
    found = [path for path in folder.glob("step-*") if (path / NOTE).is_file()]
    return sorted((int(path.name.removeprefix("step-")), path) for path in found)


def load_state(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict] | None:
    """The newest state that can be read, as (tensors by entry, note); None where there is none at all.

    Raises:
        OmniAlphaError: there are states, and not one of them can be read.
    """
    problem = None
    for _, path in reversed(states(folder)):
        try:
            note = json.loads((path / NOTE).read_text(encoding="utf-8"))
            return {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}, note
        except Exception as error:  # safetensors has error classes of its own
            problem = f"{path}: {error}"
    if problem:
        raise OmniAlphaError(f"No saved state can be read ({problem}). Start anew with another --out.")
    return None


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that sharded training (FSDP) has spread over processes, gathered; every process has to call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole value into a tensor that may be spread over processes."""
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(value)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state as flat tensors: "<parameter number>.<entry>"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": whole(value) if isinstance(value, torch.Tensor) else torch.tensor(value)
        for index, entries in state.items() for key, value in entries.items()
    }  # fmt: skip


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
