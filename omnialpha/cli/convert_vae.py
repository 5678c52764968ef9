"""The command `convert-vae`: RGB to RGBA by opaque initialisation, and one key layout to the other."""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoint.folder import RGBA_VAE, find_part
from ..checkpoint.vae_keys import channels, is_rgba, key_layout, opaque_initialise, to_diffusers, to_wan
from ..checkpoint.weights import load_tensors
from ..errors import OmniAlphaError
from ..files.writing import write_tensors


def convert_vae(source: str | Path, target: str | Path, layout: str | None = None, opaque: bool = False) -> str:
    """Writes a VAE in another form. Tensors keep their precision; the rename of layouts is exact.

    Args:
        source: VAE file or folder, in either layout.
        target: the .safetensors file to write; its folder must exist, the file must not.
        layout: "wan" or "diffusers"; as it is unless told.
        opaque: turn an RGB VAE into an RGBA one (opaque initialisation, paper section 3.2.1).

    Returns:
        One sentence that says what was written.

    Raises:
        OmniAlphaError: the source is no such VAE, nothing would change, or the target exists or cannot be written.
    """
    source, target = find_part(source, RGBA_VAE, "vae"), Path(target).expanduser()
    _check_target(target)
    weights = load_tensors(source)
    before = key_layout(weights)
    if before is None:
        raise OmniAlphaError(
            f"{source} is not a Qwen-Image VAE. `python -m omnialpha inspect {source}` says what it is."
        )
    layout = layout or before
    if opaque and is_rgba(weights):
        raise OmniAlphaError(f"{source} is an RGBA VAE already; leave out --opaque.")
    if not opaque and layout == before:
        raise OmniAlphaError(f"Nothing to do: {source} is in the {before} layout. Give --layout or --opaque.")
    if opaque:
        weights = opaque_initialise(weights)
    weights = to_wan(weights) if layout == "wan" else to_diffusers(weights)
    write_tensors(target, weights, {"format": "pt"}, new=True)
    reads, writes = channels(weights)
    return f"{target}: {reads} channels in, {writes} out, {layout} layout, {len(weights)} tensors."


def _check_target(target: Path) -> None:
    if target.suffix != ".safetensors":
        raise OmniAlphaError(f"{target} does not end in .safetensors, the only format written.")
    if target.exists():
        raise OmniAlphaError(f"{target} exists and is not overwritten. Choose another name.")
    if not target.parent.is_dir():
        raise OmniAlphaError(f"There is no folder {target.parent}. Make it first.")
    if not os.access(target.parent, os.W_OK):
        raise OmniAlphaError(f"The folder {target.parent} cannot be written to. Choose another one.")
