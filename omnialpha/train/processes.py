"""What the processes of a run share: where they compute, and the mean of their gradients."""

from __future__ import annotations

import torch


def open_accelerator(precision: str):
    """accelerate's Accelerator for "fp32" or "bf16", on the CPU where there is no GPU."""
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16" if precision == "bf16" else "no")


@torch.no_grad()
def average_gradients(accelerator, params: list[torch.nn.Parameter]) -> None:
    """Mean over processes, in one message. All processes draw the same tasks, so the same parameters have gradients.

    DistributedDataParallel wants a gradient for every parameter at every backward pass. Tasks use different parts (no
    picture, no vision tower), and the last block's text branch never gets one.
    """
    if accelerator.num_processes == 1:
        return
    grads = [param.grad for param in params if param.grad is not None]
    mean = accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
    for grad, part in zip(grads, mean.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))
