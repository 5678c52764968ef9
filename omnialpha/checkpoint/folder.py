"""A checkpoint's folder, opened once: its settings, configs, tensor headers and schedule, and where VAE and LoRA lie.

The folder is in diffusers' layout: transformer/, vae/, text_encoder/, tokenizer/ and, where they are there, processor/,
scheduler/, model_index.json and omnialpha.json. The public checkpoint is Qwen-Image-Edit-2509's folder with the
authors' rgba_vae/ and lora/ in it, or beside it. Everybody who is given a checkpoint asks this class, so that the same
folder means the same to the command line, to `inspect` and to ComfyUI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from ..json_files import read_json
from .foreign_code import refuse_code
from .settings import FILE_NAME, PUBLIC, Settings, read_scheduler, read_settings
from .weights import MICRO, TensorInfo, find_checkpoint, read_headers, weight_files

# Folders of the authors' repository, as they call them.
RGBA_VAE, LORA = "rgba_vae", "lora"


class Checkpoint:
    """A checkpoint. Making one finds the folder; everything else is read when it is first asked for, and once.

    Args:
        place: "micro" (built in), or the path of a folder.
        vae: RGBA VAE in place of the folder's own: a file, a folder with one, or the authors' repository.
        lora: LoRA for the transformer in place of the folder's own, in the same forms.

    Attributes:
        folder: where it lies.
        vae: file or folder of the VAE: what was given, else rgba_vae/, else vae/.
        lora: file or folder of the LoRA: what was given, else lora/ where there is one, else None.

    Raises:
        OmniAlphaError: there is no such folder.
    """

    def __init__(self, place: str | Path = MICRO, *, vae: str | Path | None = None, lora: str | Path | None = None):
        self.folder = find_checkpoint(place)
        rgba_vae, own_lora = self.folder / RGBA_VAE, self.folder / LORA
        self.vae = rgba_vae if rgba_vae.is_dir() else self.folder / "vae"
        self.lora = own_lora if own_lora.is_dir() else None
        self._given = {}
        if vae is not None:
            self._given["vae"] = self.vae = find_part(vae, RGBA_VAE, "vae")
        if lora is not None:
            self._given["lora"] = self.lora = find_part(lora, LORA)
        self._configs: dict[str, dict[str, Any]] = {}
        self._headers: dict[str, dict[str, TensorInfo]] = {}

    @classmethod
    def of(cls, place: str | Path | Checkpoint, **parts: str | Path | None) -> Checkpoint:
        """`place` itself where it is opened already, else `Checkpoint(place, **parts)`."""
        if not isinstance(place, Checkpoint):
            return cls(place, **parts)
        if any(path is not None for path in parts.values()):
            raise TypeError("Name VAE and LoRA where the Checkpoint is made.")
        return place

    @cached_property
    def settings(self) -> Settings:
        """What the checkpoint says about itself. With a LoRA that says nothing it is the public one. OmniAlphaError."""
        settings = read_settings(self.folder, self.scheduler)
        unsaid = self.lora is not None and not (self.folder / FILE_NAME).is_file()
        return replace(settings, tasks=PUBLIC) if unsaid else settings

    @cached_property
    def scheduler(self) -> Mapping[str, Any]:
        """diffusers' scheduler_config.json, empty where there is none. OmniAlphaError where it cannot be read."""
        return read_scheduler(self.folder)

    def config(self, part: str) -> dict[str, Any]:
        """config.json of "transformer" or "text_encoder". OmniAlphaError where it cannot be read."""
        if part not in self._configs:
            self._configs[part] = read_json(self.folder / part / "config.json")
        return self._configs[part]

    def headers(self, part: str) -> dict[str, TensorInfo]:
        """Name -> dtype and shape of the tensors of "transformer", "text_encoder" or "vae". OmniAlphaError."""
        if part not in self._headers:
            self._headers[part] = read_headers(self.vae if part == "vae" else self.folder / part)
        return self._headers[part]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the transformer's tensors. OmniAlphaError."""
        return {name: info.shape for name, info in self.headers("transformer").items()}

    def missing(self) -> list[str]:
        """What the folder lacks, as words for people; empty when it can be loaded."""
        missing = []
        parts = {"transformer": self.folder / "transformer", "vae": self.vae, "lora": self.lora}
        parts["text_encoder"] = self.folder / "text_encoder"
        for part, path in parts.items():
            if path is None or part in self._given:
                continue
            # Shapes of VAE and LoRA come from their tensors alone; the other two need their config.
            if part in ("transformer", "text_encoder") and not (path / "config.json").is_file():
                missing.append(f"{part}/config.json")
            try:
                weight_files(path)
            except OmniAlphaError as error:
                missing.append(f"{path.name}/ weights ({error})")
        tokenizer = self.folder / "tokenizer"
        if not (tokenizer / "tokenizer.json").is_file():
            absent = [name for name in ("vocab.json", "merges.txt") if not (tokenizer / name).is_file()]
            if absent:
                missing.append(f"tokenizer/tokenizer.json (or {' and '.join(absent)})")
        return missing

    def check(self) -> Checkpoint:
        """This checkpoint, if everything needed to run is there. Nothing is loaded to find out.

        Raises:
            OmniAlphaError: naming every missing part, or settings that ask for code.
        """
        refuse_code(self.folder)
        if lacking := self.missing():
            raise OmniAlphaError(
                f"{self.folder} is not a complete checkpoint. Missing: {'; '.join(lacking)}. {self._remedy()}"
            )
        for path in self._given.values():
            weight_files(path)
        return self

    def _remedy(self) -> str:
        if not (self.folder / "transformer").is_dir() and is_authors_folder(self.folder):
            return (
                "These are OmniAlpha's own files, which belong to Qwen-Image-Edit-2509: give that folder as "
                "--checkpoint and this one as --vae and --lora, or move rgba_vae and lora into that folder."
            )
        return (
            f"Expected a folder in diffusers layout; `python -m omnialpha inspect {self.folder}` shows what is there."
        )

    def record(self) -> dict[str, str | None]:
        """What it is called, for a picture's text chunk: names only, where they lay is nobody's business."""
        own = self.vae == self.folder / "vae"
        return {
            "checkpoint": self.folder.name,
            "vae": None if own else self.vae.name,
            "lora": self.lora and self.lora.name,
        }


def find_part(given: str | Path, *names: str) -> Path:
    """The file or folder that `given` means: itself or, where it holds no weights, its first folder of `names`."""
    path = Path(given).expanduser()
    if path.is_dir() and not any(path.glob("*.safetensors*")):
        return next((path / name for name in names if (path / name).is_dir()), path)
    return path


def is_authors_folder(path: Path) -> bool:
    """Does it hold the authors' files, under their own names?"""
    return any((path / name).is_dir() for name in (RGBA_VAE, LORA))
