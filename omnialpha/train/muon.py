"""Muon: momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

`torch.optim.Muon` always computes in bfloat16, which many CPUs emulate very slowly, and takes matrices only. Here the
precision is a choice, convolution kernels count as matrices (outputs x everything else), and all parameters of one
shape are orthogonalised as a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic that drives singular values towards 1


def orthogonalise(matrices: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """Nearest semi-orthogonal matrices, roughly: singular values end between about .7 and 1.2. Shape [..., a, b]."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-9)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by sqrt(max(1, rows / columns)).

    Args:
        params: tensors with two or more axes.
        lr: step length; each update has a spectral norm of about `lr`.
        momentum: decay of the running mean of gradients.
        weight_decay: decoupled, multiplied by `lr`.
        precision: dtype of the orthogonalisation; it is not sensitive.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """One update. Parameters without a gradient are left alone."""
        loss = closure() if closure else None
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    by_shape[param.shape].append(param)
            for shape, params in by_shape.items():
                self._step_alike(params, shape, group)
        return loss

    def _step_alike(self, params: list[torch.Tensor], shape: torch.Size, group: dict) -> None:
        updates = []
        for param in params:
            gradient, mean = param.grad, self.state[param].setdefault("momentum", torch.zeros_like(param))
            assert gradient is not None, "only parameters with a gradient are updated"
            mean.lerp_(gradient, 1 - group["momentum"])
            updates.append(gradient.lerp(mean, group["momentum"]).flatten(1))
        directions = orthogonalise(torch.stack(updates).to(self.precision)).to(updates[0].dtype)
        scale = max(1, directions.shape[-2] / directions.shape[-1]) ** 0.5
        for param, direction in zip(params, directions, strict=True):
            param.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction.view(shape), alpha=-group["lr"] * scale)
