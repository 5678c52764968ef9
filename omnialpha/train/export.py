"""Write a checkpoint folder in diffusers layout from trained parts."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from ..checkpoint.settings import Settings
from ..files.writing import write_json, write_tensors
from ..tasks import TASKS
from .architecture import as_half, save_tokenizer
from .state import gathered

FORMAT = {"format": "pt"}  # what transformers and diffusers look for in a file's metadata

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
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}

MODEL_INDEX = {
    "_class_name": "OmniAlphaPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}


def write_vae(vae, out: Path) -> None:
    """A VAE in diffusers layout, weights as float16."""
    out.mkdir(parents=True, exist_ok=True)
    vae.save_config(out)
    write_tensors(out / "diffusion_pytorch_model.safetensors", as_half(vae.state_dict()), FORMAT)


def stored_as_half(checkpoint: Path) -> bool:
    """Whether a checkpoint's transformer is float16 on the disk; then what is trained from it stays so."""
    with safe_open(sorted((checkpoint / "transformer").glob("*.safetensors"))[0], "pt") as file:
        return all(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118 - no mapping


def write_models(
    transformer, text_encoder, tokenizer, settings: Settings, out: Path, half: bool = True, main: bool = True
) -> None:
    """Everything but the VAE, plus the small JSON files that make it a checkpoint; files are replaced one by one.

    Every process of a run has to call it, for what is spread over them; the main one writes.

    Args:
        transformer, text_encoder, tokenizer: the models.
        settings: what the checkpoint says about itself.
        out: the folder.
        half: weights as float16, for a small download; otherwise as they are.
        main: this is the process that writes.
    """
    states = [gathered(module.state_dict(), main) for module in (transformer, text_encoder)]
    if not main:
        return
    drawn, state = map(as_half, states) if half else states
    config = json.loads(transformer.to_json_string())
    # Spreading a model over processes changes the name of its class.
    write_json(out / "transformer/config.json", config | {"_class_name": MODEL_INDEX["transformer"][1]})
    write_tensors(out / "transformer/diffusion_pytorch_model.safetensors", drawn, FORMAT)
    state.pop("lm_head.weight", None)  # tied to the embedding, and never used: only hidden states are read
    (out / "text_encoder").mkdir(parents=True, exist_ok=True)
    text_encoder.config.save_pretrained(out / "text_encoder")
    write_tensors(out / "text_encoder/model.safetensors", state, FORMAT)
    (out / "tokenizer").mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, out / "tokenizer")
    write_json(out / "scheduler/scheduler_config.json", SCHEDULER)
    write_json(out / "model_index.json", MODEL_INDEX)
    write_json(out / "omnialpha.json", settings.to_json())
