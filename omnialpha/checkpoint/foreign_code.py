"""A checkpoint is data: Python code that lies in its folder, or that its settings name, is never run.

transformers would ask on standard input whether to run it, and an answer may be waiting there. So folders that ask for
code are refused in words before anything of them is loaded, and no call leaves the question open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError

# Settings that name code: classes in a file of the folder or of a repository, and compute kernels from a repository.
_CODE = ("auto_map", "custom_pipelines", "custom_generate")
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def refuse_code(folder: Path) -> None:
    """Makes sure that no settings file of a folder asks for code; folders in it are looked at as well.

    Args:
        folder: a checkpoint or a part of one; what is not there asks for nothing.

    Raises:
        OmniAlphaError: one does; the message names the file and the code.
    """
    for path in sorted({*folder.glob("*config.json"), *folder.glob("*/*config.json")}):
        try:
            settings = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # whoever needs that file says what is wrong with it
        for key, value in _entries(settings):
            if _names_code(key, value):
                raise OmniAlphaError(
                    f"{path} asks to run code that comes with it ({key}: {str(value)[:80]}). A checkpoint is data, and "
                    f"its code is never run. Use a checkpoint without; Qwen-Image-Edit-2509's own files need none."
                )


def open_tokenizer(folder: Path) -> Any:
    """The transformers tokenizer in a folder.

    Raises:
        OmniAlphaError: its settings ask for code, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    refuse_code(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions for damaged files
        raise OmniAlphaError(f"The tokenizer in {folder} cannot be loaded: {str(error).strip()}") from error


def _names_code(key: str, value: Any) -> bool:
    return bool(value) and (key in _CODE or (key in _KERNELS and "/" in str(value)))


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a JSON document, however deep."""
    waiting = [settings]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield from inner.items()
        if isinstance(inner, dict | list):
            waiting += inner.values() if isinstance(inner, dict) else inner
