"""Whether the tensors of a file are those of a model, by the names and shapes of its twin on the meta device.

A model of ComfyUI may have no weights at all before they are loaded into it, and then takes whatever comes. So a second
one is made of PyTorch's own layers, without memory, and asked what it would hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.model.loading import compare, shapes_of, summary


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
        OmniAlphaError: tensors missing, unknown or of another shape; the message names the first few.
    """
    wanted = shapes_of(twin)
    asked = found if strict else {name: tensor for name, tensor in found.items() if name in wanted}
    if problems := compare(wanted, asked):
        raise OmniAlphaError(f"{source} does not fit {what}: {summary(problems)}.")
