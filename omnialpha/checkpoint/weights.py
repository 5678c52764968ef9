"""Finding and reading checkpoints, safely.

Weights are read from safetensors only: a pickle runs whatever code its author put in. Headers are parsed here with the
standard library (the format is a little-endian uint64 length, a JSON header, then raw tensors), so that a folder can be
checked and described without loading a single tensor, and a cut-off download is named as one.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OmniAlphaError
from ..json_files import read_json

if TYPE_CHECKING:
    import torch

MICRO = "micro"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")

_HEADER_LIMIT = 100_000_000  # bytes; the safetensors library's own limit
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
          "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as a safetensors header describes it: dtype ("F32", "BF16", ...) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def find_checkpoint(name_or_path: str | Path = MICRO) -> Path:
    """The folder of a checkpoint: "micro" is the one inside this library, anything else is a path.

    Raises:
        OmniAlphaError: there is no such folder, or it is a single file.
    """
    built_in = str(name_or_path) == MICRO
    path = Path(__file__).parent.parent / MICRO if built_in else Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise OmniAlphaError(
            f"{path} is a file; a checkpoint is a folder in diffusers layout (transformer/, vae/, text_encoder/, "
            f"tokenizer/). A VAE file or a LoRA file is given beside such a folder, as --vae or --lora."
        )
    raise OmniAlphaError(
        f"No checkpoint at {path}. Expected '{MICRO}' (built in) or the path of a folder in diffusers layout."
    )


def weight_files(path: str | Path) -> list[Path]:
    """The safetensors files that hold one model's weights.

    Args:
        path: a .safetensors file, a `*.safetensors.index.json`, or a folder with one of them.

    Raises:
        OmniAlphaError: nothing there, only pickles, or a shard is missing.
    """
    path = Path(path)
    if path.is_dir():
        indices = sorted(path.glob("*.safetensors.index.json"))
        files = sorted(path.glob("*.safetensors"))
        if indices:
            return _shards(indices[0])
        if len(files) == 1:
            return files
        if files:
            names = ", ".join(file.name for file in files[:4])
            raise OmniAlphaError(f"{path} holds {len(files)} weight files ({names}) and no index; name one of them.")
        pickles = [file.name for file in sorted(path.iterdir()) if file.suffix in PICKLES]
        if pickles:
            raise OmniAlphaError(_refuse_pickle(path / pickles[0]))
        raise OmniAlphaError(f"{path} holds no .safetensors file.")
    if not path.is_file():
        raise OmniAlphaError(f"There is no {path}.")
    return _shards(path) if path.name.endswith(".index.json") else [path]


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise OmniAlphaError(f'{index} has no "weight_map"; it is not an index of safetensors shards.')
    files = []
    for name in sorted(set(map(str, names.values()))):
        if Path(name).name != name:  # an index must not reach outside its own folder
            raise OmniAlphaError(f"{index} points to {name!r}; shards lie beside their index.")
        files.append(index.parent / name)
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise OmniAlphaError(f"{index} lists {', '.join(absent)}, which is missing. Fetch the missing shards.")
    return files


def read_header(path: str | Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """What a safetensors file holds, without reading its tensors.

    Returns:
        ({name: TensorInfo}, metadata).

    Raises:
        OmniAlphaError: a pickle, another format, or a file that is cut off or damaged.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            plausible = 2 <= length <= min(_HEADER_LIMIT, size - 8)
            raw = file.read(length) if plausible else b""
    except OSError as error:
        raise OmniAlphaError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not plausible or raw[:1] != b"{":
        raise OmniAlphaError(_not_safetensors(path, size, head, plausible))
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        tensors = {name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
        ends = [entry["data_offsets"][1] for entry in header.values()]
        spans = {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
        wrong = [n for n, t in tensors.items() if t.dtype in _BYTES and t.elements * _BYTES[t.dtype] != spans[n]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise OmniAlphaError(f"{path} has a damaged safetensors header ({error}). Fetch the file again.") from error
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise OmniAlphaError(
            f"{path} is cut off: {size:,} bytes found, {expected:,} expected. The download or copy did not finish; "
            f"fetch the file again."
        )
    if size > expected or wrong:
        what = f"tensor {wrong[0]} does not fill its place" if wrong else f"{size - expected:,} bytes too many"
        raise OmniAlphaError(f"{path} is damaged: {what}. Fetch the file again.")
    if not tensors:
        raise OmniAlphaError(f"{path} is a safetensors file without a single tensor.")
    return tensors, metadata


def read_headers(path: str | Path) -> dict[str, TensorInfo]:
    """`read_header` over every file of a model (file, index or folder); tensors only."""
    return {name: info for file in weight_files(path) for name, info in read_header(file)[0].items()}


def load_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, of an index with its shards, or of a folder with either, as they are stored.

    Raises:
        OmniAlphaError: see `weight_files` and `read_header`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        read_header(file)
        try:
            tensors.update(load_file(file))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise OmniAlphaError(f"{file} cannot be read: {error}. Fetch the file again.") from error
    return tensors


def _refuse_pickle(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run any code when it is opened, so it is not. "
        f"Use the .safetensors file of the same model, or convert it on a machine you can spare."
    )


def _not_safetensors(path: Path, size: int, head: bytes, plausible: bool) -> str:
    """Words for a file that is no safetensors: what it looks like, and what to do."""
    if size == 0:
        return f"{path} is empty (0 bytes). Fetch the file again."
    if path.suffix.lower() in PICKLES or head[:4] == b"PK\x03\x04" or head[:2] in (b"\x80\x02", b"\x80\x04"):
        return _refuse_pickle(path)
    if head[:4] == b"GGUF":
        return f"{path} is a GGUF file; use it in ComfyUI with a GGUF loader. Here a .safetensors file is expected."
    if head == b"version ":
        return f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull`, or download the file itself."
    if head[:1] in (b"<", b"{"):
        return f"{path} is a text or web page, not weights. The download went wrong; fetch the file again."
    if path.suffix == ".safetensors" and not plausible:
        return f"{path} is cut off or damaged: its header does not fit into its {size:,} bytes. Fetch it again."
    return f"{path} is not a safetensors file. Expected weights saved as .safetensors."
