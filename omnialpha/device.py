"""Which device to work on."""

from __future__ import annotations

import torch

from .errors import OmniAlphaError


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises:
        OmniAlphaError: unknown, or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OmniAlphaError(f"There is no device '{name}' here ({reason}). Use --device cpu or auto.") from error
    return device
