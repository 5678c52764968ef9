"""Learning rates as functions of the step, and averaged weights."""

from __future__ import annotations

import math

import torch

FLOOR = 0.01  # what the rate falls to, relative to its peak


def rate(step: int, steps: int, schedule: str = "constant", warm: int = 100, hold: float = 0.5) -> float:
    """Factor on the learning rate at a step (from 0) of a run of `steps`.

    It rises linearly over `warm` steps, then follows `schedule`: "constant"; "cosine" down to a hundredth; or "linear",
    constant for `hold` of the run and down to a hundredth from there.
    """
    done = step / steps
    fall = {
        "constant": 1.0,
        "cosine": FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)),
        "linear": max(FLOOR, min(1.0, (1 - done) / (1 - hold))),
    }[schedule]
    return min(1.0, (step + 1) / max(1, warm)) * fall


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's learning rate relative to the one it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor


class Average:
    """Exponential moving average of named parameters; young averages forget faster.

    Args:
        named: (name, parameter) pairs; those that need no gradient are left out.
        decay: of the average, once it is old.
    """

    def __init__(self, named: list[tuple[str, torch.nn.Parameter]], decay: float):
        self.named = [(name, param) for name, param in named if param.requires_grad]
        self.decay, self.count = decay, 0
        self.values = {name: param.detach().clone() for name, param in self.named}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (20 + self.count))
        torch._foreach_lerp_(list(self.values.values()), [param.detach() for _, param in self.named], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average; call again to exchange back."""
        for name, param in self.named:
            held = param.detach().clone()
            param.copy_(self.values[name])
            self.values[name].copy_(held)
