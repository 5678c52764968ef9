"""Whether the tensors of a file are those of a model, by the names and shapes of its twin on the meta device.

A model of ComfyUI may have no weights at all before they are loaded into it, and then takes whatever comes. So a second
one is made of PyTorch's own layers, without memory, and asked what it would hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ...omnialpha.errors import OmniAlphaError


def check_tensors(
    found: Mapping[str, Tensor], twin: nn.Module, source: Path | str, what: str, strict: bool = True
) -> None:
    """Makes sure that `found` are the tensors of `twin`.

    Args:
        found: name -> tensor, as a model's `load_state_dict` takes them.
        twin: the same model on the meta device, of PyTorch's layers.
        source: how the message calls the file.
        what: how the message calls the model.
        strict: are tensors that the model does not know a fault?

    Raises:
        OmniAlphaError: tensors missing, unknown or of another shape; the message counts and names them.
    """
    wanted = twin.state_dict()
    problems = {
        "missing": sorted(set(wanted) - set(found)),
        "unknown": sorted(set(found) - set(wanted)) if strict else [],
        "of another shape": [key for key in wanted if key in found and found[key].shape != wanted[key].shape],
    }
    if any(problems.values()):
        words = ", ".join(f"{len(keys)} {problem} (such as {keys[0]})" for problem, keys in problems.items() if keys)
        raise OmniAlphaError(f"{source} does not fit {what}. Tensors: {words}.")
