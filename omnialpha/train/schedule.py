"""Learning rates over a run that is bounded by time or by steps, and the groups of parameters they apply to."""

from __future__ import annotations

import time

import torch


class Budget:
    """How far a run has come, by the clock: `done` grows from 0 to 1. Survives a resume through `spent`."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.seconds, self.start = minutes * 60, time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return time.monotonic() - self.start

    @property
    def done(self) -> float:
        """Share of the budget used, 0 to 1."""
        return min(1.0, self.spent / self.seconds)


def warm_then_linear(step: int, done: float, warm_steps: int = 100, hold: float = 0.5, floor: float = 0.01) -> float:
    """Factor on the learning rate: linear warm-up, constant until `hold` of the run, then linear down to `floor`."""
    return min(1.0, (step + 1) / warm_steps) * max(floor, min(1.0, (1 - done) / (1 - hold)))


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's learning rate relative to the one it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor


class Average:
    """Exponential moving average of named parameters; young averages forget faster."""

    def __init__(self, named: list[tuple[str, torch.nn.Parameter]], decay: float):
        self.named, self.decay, self.count = named, decay, 0
        self.values = {name: param.detach().clone() for name, param in named}

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
