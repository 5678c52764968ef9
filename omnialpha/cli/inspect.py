"""The command `inspect`: what a weight file or a checkpoint folder is, read from headers alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.folder import LORA, RGBA_VAE, Checkpoint, is_authors_folder
from ..checkpoint.lora import is_lora, read_lora
from ..checkpoint.settings import FILE_NAME
from ..checkpoint.vae_keys import channels, is_rgba, key_layout, to_diffusers
from ..checkpoint.weights import MICRO, TensorInfo, find_checkpoint, read_headers, weight_files
from ..errors import OmniAlphaError
from ..tasks import TASKS

Report = dict[str, Any]

# What ComfyUI's checkpoints put before a transformer's names.
_WRAPPERS = ("model.diffusion_model.", "diffusion_model.", "transformer.")
_BLOCK = "transformer_blocks.0.attn.add_q_proj.weight"
_BLOCK_NUMBER = re.compile(r"blocks[._](\d+)")


def inspect(path: str | Path, checkpoint: str | Path | None = None) -> Report:
    """Describes a file, a folder with one model, or a checkpoint folder.

    Args:
        path: file, folder, or "micro".
        checkpoint: whose transformer a LoRA is compared with; None compares its names alone.

    Returns:
        A report that JSON can hold: "path", "kind", "facts" (name -> value), "problems" and "hints" (sentences), and
        for checkpoints "parts" (folder name -> report).

    Raises:
        OmniAlphaError: there is nothing, or it cannot be read.
    """
    path = find_checkpoint(path) if str(path) == MICRO else Path(path).expanduser()
    if not path.exists():
        raise OmniAlphaError(f"There is nothing at {path}.")
    if path.is_dir() and any((path / part).is_dir() for part in ("transformer", "text_encoder", "vae")):
        return _checkpoint(path)
    if path.is_dir() and is_authors_folder(path):
        return _authors(path, checkpoint)
    return _model(path, checkpoint)


def describe(report: Report, indent: str = "") -> str:
    """A report as lines of text."""
    lines = [f"{indent}{report['path']}: {report['kind']}"]
    lines += [f"{indent}  {name + ':':18}{_words(value)}" for name, value in report["facts"].items()]
    for part in report.get("parts", {}).values():
        lines.append(describe(part, indent + "  "))
    lines += [f"{indent}  PROBLEM: {problem}" for problem in report["problems"]]
    lines += [f"{indent}  {hint}" for hint in report["hints"]]
    return "\n".join(lines)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _report(path: Path, kind: str, facts: Mapping[str, Any], problems=(), hints=()) -> Report:
    return {"path": str(path), "kind": kind, "facts": dict(facts), "problems": list(problems), "hints": list(hints)}


def _model(path: Path, checkpoint: str | Path | Checkpoint | None = None) -> Report:
    """One model, in a file or in shards."""
    tensors = read_headers(path)
    if is_lora(tensors):
        return _lora(weight_files(path)[0], tensors, checkpoint)
    if key_layout(tensors):
        return _vae(path, tensors)
    wrapper = next((prefix for prefix in ("", *_WRAPPERS) if prefix + _BLOCK in tensors), None)
    if wrapper is not None:
        return _transformer(path, tensors, wrapper)
    if any(key.endswith("self_attn.q_proj.weight") for key in tensors):
        return _text_encoder(path, tensors)
    return _report(
        path,
        "not a model of this family",
        _common(tensors) | {"tensors such as": list(tensors)[:3]},
        hints=["Expected a Qwen-Image transformer, VAE, text encoder (Qwen2.5-VL), or a LoRA."],
    )


def _common(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    dtypes = Counter(info.dtype for info in tensors.values())
    return {
        "dtype": [f"{dtype} ({count})" if len(dtypes) > 1 else dtype for dtype, count in dtypes.most_common()],
        "tensors": len(tensors),
        "parameters": sum(info.elements for info in tensors.values()),
    }


def _vae(path: Path, tensors: Mapping[str, TensorInfo]) -> Report:
    """A VAE: layout and channels as its tensors have them."""
    from ..model.loading import compare

    layout, (reads, writes) = key_layout(tensors), channels(tensors)
    rgba, problems, hints = is_rgba(tensors), [], []
    try:
        renamed = to_diffusers(tensors)
        problems = compare(_vae_shapes(renamed, reads), renamed)
    except OmniAlphaError as error:
        problems = [str(error)]
    except KeyError as error:
        problems = [f"{error.args[0]} is missing"]
    if rgba and layout == "diffusers":
        hints.append(
            "ComfyUI's own VAE loader wants the other layout: `convert-vae IN OUT --layout wan`, or load it "
            "with this pack's loader."
        )
    if not rgba and (reads, writes) == (3, 3):
        hints.append("For RGB. `convert-vae IN OUT --opaque` makes an RGBA VAE of it, the starting point for training.")
    facts = {"key layout": layout, "channels": f"{reads} in, {writes} out", **_common(tensors)}
    return _report(path, "RGBA VAE" if rgba else "RGB VAE", facts, problems[:5], hints)


def _vae_shapes(renamed: Mapping[str, TensorInfo], channels_in: int) -> dict[str, tuple[int, ...]]:
    """What a complete VAE of that width holds."""
    import torch
    from diffusers import AutoencoderKLQwenImage

    from ..model.loading import shapes_of

    width, latent = renamed["encoder.conv_in.weight"].shape[0], renamed["quant_conv.weight"].shape[0] // 2
    with torch.device("meta"):
        return shapes_of(AutoencoderKLQwenImage(base_dim=width, z_dim=latent, input_channels=channels_in))


def _transformer(path: Path, tensors: Mapping[str, TensorInfo], wrapper: str) -> Report:
    def find(name: str) -> tuple[int, ...]:
        return tensors[wrapper + name].shape if wrapper + name in tensors else (0, 0)

    start = wrapper + "transformer_blocks."
    blocks = {key.removeprefix(start).split(".")[0] for key in tensors if key.startswith(start)}
    facts = {
        "key layout": f"ComfyUI ({wrapper}...)" if wrapper else "diffusers",
        "blocks": len(blocks),
        "width": find(_BLOCK)[0],
        "text width": find("txt_in.weight")[1],
        "token width": find("img_in.weight")[1],
        **_common(tensors),
    }
    hints = [] if not wrapper else ["For ComfyUI. The command line reads folders in diffusers layout."]
    return _report(path, "Qwen-Image transformer", facts, hints=hints)


def _text_encoder(path: Path, tensors: Mapping[str, TensorInfo]) -> Report:
    table = next((info for key, info in tensors.items() if key.endswith("embed_tokens.weight")), None)
    vision = any("visual." in key for key in tensors)
    layers = {key.split("layers.")[1].split(".")[0] for key in tensors if "layers." in key and "visual." not in key}
    facts = {
        "layers": len(layers),
        "vocabulary": table.shape[0] if table else "not in this file",
        "text width": table.shape[1] if table else "not in this file",
        "vision tower": "yes" if vision else "no",
        **_common(tensors),
    }
    problems = [] if vision else ["No vision tower: this is a text-only model, OmniAlpha shows it pictures as well."]
    return _report(path, "Qwen2.5-VL text encoder" if vision else "text model", facts, problems)


def _lora(path: Path, tensors: Mapping[str, TensorInfo], checkpoint: str | Path | Checkpoint | None) -> Report:
    """A LoRA, and whether it has a place in a transformer."""
    lora = read_lora(path)
    blocks = {found[1] for found in map(_BLOCK_NUMBER.search, lora.layers) if found}
    widths = Counter(layer.shape[1] for layer in lora.layers.values())
    facts = {
        "key style": lora.style,
        "rank": lora.ranks,
        "layers": len(lora.layers),
        "made for": f"{len(blocks)} blocks of width {widths.most_common(1)[0][0]}",
        **_common(tensors),
    }
    if checkpoint is None:
        known = {_generic(name.removesuffix(".weight")) for name in Checkpoint().shapes}
        strange = [module for module in lora.layers if _generic(module) not in known]
        facts["names"] = (
            f"{len(lora.layers) - len(strange)} of {len(lora.layers)} are those of a Qwen-Image transformer"
        )
        unmatched = [f"{module}: no layer of a Qwen-Image transformer" for module in strange]
        hints = ["--checkpoint compares its shapes with a transformer as well."]
    else:
        checkpoint = Checkpoint.of(checkpoint)
        placed, unmatched = lora.match(checkpoint.shapes)
        facts[f"fits {checkpoint.folder.name}"] = f"{len(placed)} of {len(lora.layers)} layers"
        hints = [] if placed else ["It was made for another transformer."]
    unmatched += [f"{key}: not part of a LoRA pair" for key in lora.strays if checkpoint is None]
    if lora.style == "PEFT":
        hints.append("ComfyUI's LoRA loader matches none of these keys, silently; the command line can use them.")
    stated = {lora.strength(module) for module, layer in lora.layers.items() if layer.alpha is None} - {1.0}
    if stated:
        facts["strength by metadata"] = sorted(round(strength, 4) for strength in stated)
        hints.append(
            "'OmniAlpha Load Checkpoint' reads this strength from the file, ComfyUI's LoRA nodes do not: multiply "
            "their strength_model by it."
        )
    more = [f"... and {len(unmatched) - 5} more"] if len(unmatched) > 5 else []
    return _report(path, "LoRA", facts, unmatched[:5] + more, hints)


def _generic(module: str) -> str:
    """A module's name without its block number, dots and underscores alike."""
    return _BLOCK_NUMBER.sub("blocks_N", module).replace(".", "_")


def _authors(folder: Path, checkpoint: str | Path | None) -> Report:
    """The authors' own files, a VAE and a LoRA, which make a checkpoint of Qwen-Image-Edit-2509's folder."""
    places = {"vae": folder / RGBA_VAE, "lora": folder / LORA}
    parts, problems = {}, []
    for name, place in places.items():
        try:
            parts[name] = _model(place, checkpoint)
        except OmniAlphaError as error:
            problems.append(str(error))
    hints = ["Give it as --vae and --lora beside --checkpoint Qwen-Image-Edit-2509, or move both folders into that."]
    return _report(folder, "OmniAlpha's own files", {}, problems, hints) | {"parts": parts}


def _checkpoint(folder: Path) -> Report:
    """A checkpoint folder: its parts, its settings, and what keeps it from running."""
    from ..model.loading import check_parts

    checkpoint = Checkpoint(folder)
    problems = [f"missing: {part}" for part in checkpoint.missing()]
    places = {"transformer": folder / "transformer", "vae": checkpoint.vae, "text_encoder": folder / "text_encoder"}
    places |= {"lora": checkpoint.lora} if checkpoint.lora else {}
    parts = {}
    for name, place in places.items():
        try:
            parts[name] = _model(place, checkpoint if name == "lora" and "transformer" in parts else None)
            problems += [f"{name}: {problem}" for problem in parts[name].pop("problems")]
            parts[name]["problems"] = []
        except OmniAlphaError as error:
            if place.is_dir() and not any(name in problem for problem in problems):
                problems.append(str(error))
    facts: dict[str, Any] = {}
    try:
        settings = checkpoint.settings
        known = [task for task in settings.tasks or () if task in TASKS]
        facts = {
            "tasks": f"{len(known)} of {len(TASKS)}" if settings.tasks is not None else f"not stated (no {FILE_NAME})",
            "pixel budget": settings.pixel_budget,
            "size multiple": settings.size_multiple,
            "steps": settings.steps,
            "guidance": settings.guidance,
        }
        if settings.sampling:
            facts["own sampling"] = [
                f"{task} (steps {settings.steps_for(task)}, guidance {settings.guidance_for(task):g})"
                for task in settings.sampling
            ]
        if settings.tasks and len(known) < len(TASKS):
            facts["trained on"] = known
        if strange := [task for task in settings.tasks or () if task not in TASKS]:
            problems.append(f"{FILE_NAME} names tasks that this version does not know: {', '.join(strange)}")
    except OmniAlphaError as error:
        problems.append(str(error))
    if not problems:
        try:
            check_parts(checkpoint)
        except OmniAlphaError as error:
            problems.append(str(error))
    hints = [] if problems else ["Complete: `run TASK --checkpoint` can use it."]
    if parts.get("vae", {}).get("kind") == "RGB VAE":
        hints = ["Its VAE is for RGB: give an RGBA one with `run ... --vae`."]
    return _report(folder, "checkpoint", facts, problems, hints) | {"parts": parts}
