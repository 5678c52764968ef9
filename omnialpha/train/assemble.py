"""Write a checkpoint folder in diffusers layout from trained parts."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from ..settings import Settings
from ..tasks import TASKS
from .architecture import as_half, save_tokenizer

# One layer or four, the tokens come to about the same number: 128, 96, 80 or 64 px a side. Where a picture decides the
# answer, the first step of a model this small is its best; only what has to be invented gains from more.
MICRO_SETTINGS = Settings(
    pixel_budget=128 * 128,
    size_multiple=16,
    tasks=tuple(TASKS),
    steps=1,
    guidance=1.0,
    sampling={
        **{task.id: {"steps": 20} for task in TASKS.values() if task.family in ("generation", "completion")},
        "text_to_rgba": {"steps": 20, "guidance": 2.0},
    },
)

# Qwen-Image's flow matching schedule.
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 256, "base_shift": 0.5,
    "max_image_seq_len": 8192, "max_shift": 0.9, "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.02,
    "time_shift_type": "exponential", "use_dynamic_shifting": True,
}  # fmt: skip

MODEL_INDEX = {
    "_class_name": "OmniAlphaPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}


def write_json(path: Path, data: dict) -> None:
    """Pretty JSON with a final newline; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_vae(source: Path, out: Path) -> None:
    """Copy a trained VAE's folder, weights as float16."""
    out.mkdir(parents=True, exist_ok=True)
    name = "diffusion_pytorch_model.safetensors"
    half = {key: tensor.half() for key, tensor in load_file(source / name).items()}
    save_file(half, out / name, metadata={"format": "pt"})
    write_json(out / "config.json", json.loads((source / "config.json").read_text()))


def write_models(transformer, text_encoder, tokenizer, out: Path) -> None:
    """Everything but the VAE, weights as float16, plus the small JSON files that make it a checkpoint."""
    (out / "transformer").mkdir(parents=True, exist_ok=True)
    transformer.save_config(out / "transformer")
    save_file(as_half(transformer), out / "transformer/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    state = as_half(text_encoder)
    state.pop("lm_head.weight", None)  # tied to the embedding, and never used: only hidden states are read
    (out / "text_encoder").mkdir(parents=True, exist_ok=True)
    text_encoder.config.save_pretrained(out / "text_encoder")
    save_file(state, out / "text_encoder/model.safetensors", metadata={"format": "pt"})
    (out / "tokenizer").mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, out / "tokenizer")
    write_json(out / "scheduler/scheduler_config.json", SCHEDULER)
    write_json(out / "model_index.json", MODEL_INDEX)
    write_json(out / "omnialpha.json", MICRO_SETTINGS.to_json())
