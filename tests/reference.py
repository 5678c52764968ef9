"""What diffusers itself computes, for shapes and settings that the golden fixtures leave out.

Stock classes alone: transformer with its own positions, scheduler, Euler steps and guidance as in
QwenImageEditPlusPipeline, PEFT's layers for LoRA, the video VAE. Only the weights are the fixtures'.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parent / "golden"
CONFIG = json.loads((GOLDEN / "dit/scheduler/scheduler_config.json").read_text())

# Largest difference of outputs: these runs end up to 1.3e-5 from diffusers', as sums in another order do. Processors
# with AMX multiply matrices with fewer digits, which makes up to 6e-5 in one forward pass.
_PROCESSOR = Path("/proc/cpuinfo")
TOLERANCE = 1e-4 if _PROCESSOR.is_file() and "amx_tile" in _PROCESSOR.read_text() else 2e-5

# Step and target token counts whose noise levels have to be diffusers' bit for bit.
STEPS = (1, 2, 3, 4, 8, 20, 28, 30, 40, 50, 100)
TOKENS = (16, 64, 96, 256, 300, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 10240, 12288)

# Strengths that only the metadata of a LoRA states: exceptions by name, and rank-stabilised ones.
LORA_CONFIG = {"r": 4, "lora_alpha": 6, "use_rslora": True, "alpha_pattern": {"attn.to_k": 2, "img_mlp.net.2": 12}}


@dataclass(frozen=True)
class Run:
    """One sampling run. Sizes are (height, width) in latent pixels; with LoRA, the one of `LORA_CONFIG`."""

    targets: int
    size: tuple[int, int]
    inputs: tuple[tuple[int, int], ...]
    steps: int
    guidance: float
    lora: bool = False


# Where stock positions hold: the text starts behind all layers, so at least one side has 2 (m + n) patches.
RUNS = {
    "one layer from one": Run(1, (16, 16), ((16, 16),), 8, 4.0),
    "odd patch counts": Run(2, (18, 14), ((10, 22), (26, 6)), 20, 1.0),
    "more layers than trained": Run(4, (20, 8), ((20, 8), (6, 30), (28, 4)), 4, 7.5),
    "no input": Run(2, (14, 10), (), 3, 2.0),
    "a level that rounds": Run(1, (8, 32), ((8, 32),), 8, 3.0),
    "lora": Run(2, (16, 12), ((16, 12),), 8, 4.0, lora=True),
}
VISION = [151652, 151655, 151653]  # Qwen's ids for a picture's start, its place and its end
PICTURES = {"wide": (16, 48), "tall": (80, 32)}  # (height, width) in pixels

# (height, width) of the pictures in a prompt: one window of the vision tower and many, whole and cut ones.
PROMPTS = {"one window": [(56, 56)], "cut windows": [(140, 308)], "several": [(56, 252), (308, 84), (112, 112)]}


def shift(tokens: int, config: dict = CONFIG) -> float:
    """The pipeline's mu for that many target tokens."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift

    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    return calculate_shift(tokens, *(config[key] for key in keys))


def scheduler(steps: int, tokens: int, config: dict = CONFIG):
    """diffusers' scheduler, set as its pipeline sets it."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    with np.errstate(invalid="ignore"):  # one step divides 0 by 0
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift(tokens, config))
    return scheduler


def write_lora(file: Path) -> None:
    """The fixtures' LoRA, told to be of other strengths in the way diffusers does it."""
    tensors = load_file(GOLDEN / "dit/lora_rank4.safetensors")
    modules = sorted({key.removeprefix("transformer.").split(".lora_")[0] for key in tensors})
    config = {f"transformer.{name}": value for name, value in (LORA_CONFIG | {"target_modules": modules}).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, {"format": "pt", "lora_adapter_metadata": json.dumps(config)})


def draw(run: Run) -> dict[str, torch.Tensor]:
    """What goes into a run: noise [1, 16, m, h, w], input{i} [1, 16, 1, a, b] (normalised), two contexts [1, L, 48]."""
    generator = torch.Generator().manual_seed(3)
    shapes = {f"input{i}": (1, 16, 1, *size) for i, size in enumerate(run.inputs)}
    shapes |= {"context": (1, 11, 48), "negative": (1, 5, 48)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    seeded = torch.Generator().manual_seed(0)
    return {"noise": torch.randn(1, 16, run.targets, *run.size, generator=seeded), **drawn}


@torch.no_grad()
def sample(run: Run, lora: Path | None = None) -> torch.Tensor:
    """The latents [1, 16, m, h, w] that a run ends with."""
    from diffusers import QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel.from_pretrained(GOLDEN / "dit/transformer", torch_dtype=torch.float32)
    if lora is not None:
        transformer.load_lora_adapter(lora.parent, weight_name=lora.name, prefix="transformer")
    drawn, (h, w) = draw(run), run.size
    x = torch.cat([_pack(frame) for frame in drawn["noise"].unbind(2)], dim=1)
    clean = [_pack(drawn[f"input{i}"][:, :, 0]) for i in range(len(run.inputs))]
    shapes = [[(1, a // 2, b // 2) for a, b in [run.size] * run.targets + list(run.inputs)]]
    clock = scheduler(run.steps, x.shape[1])
    for t in clock.timesteps:
        cond, uncond = (
            transformer(
                hidden_states=torch.cat([x, *clean], dim=1),
                timestep=t.expand(1) / 1000,
                encoder_hidden_states=drawn[name],
                img_shapes=shapes,
                return_dict=False,
            )[0][:, : x.shape[1]]
            for name in ("context", "negative")
        )
        if run.guidance > 1:
            combined = uncond + run.guidance * (cond - uncond)
            cond = combined * (torch.norm(cond, dim=-1, keepdim=True) / torch.norm(combined, dim=-1, keepdim=True))
        x = clock.step(cond, t, x, return_dict=False)[0]
    frames = x.reshape(1, run.targets, h // 2, w // 2, 16, 2, 2).permute(0, 4, 1, 2, 5, 3, 6)
    return frames.reshape(1, 16, run.targets, h, w)


def _pack(latent: torch.Tensor) -> torch.Tensor:
    """[1, 16, h, w] -> [1, (h/2)(w/2), 64], as QwenImagePipeline._pack_latents has it."""
    _, channels, h, w = latent.shape
    patches = latent.view(1, channels, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(1, (h // 2) * (w // 2), channels * 4)


def layer(size: tuple[int, int]) -> torch.Tensor:
    """A layer [4, H, W] in [0, 1] on steps of 8 bits, part of it transparent."""
    noise = torch.rand(4, *size, generator=torch.Generator().manual_seed(size[1]))
    noise[3] = (noise[3] * 2 - 0.5).clamp(0, 1)
    return (noise * 255).round() / 255


@torch.no_grad()
def vae(size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Posterior mean [1, 16, 1, h, w] of `layer`, not normalised, and what it decodes to: [4, H, W] in [0, 1]."""
    from diffusers import AutoencoderKLQwenImage

    weights = {name: t.float() for name, t in load_file(GOLDEN / "vae/diffusion_pytorch_model.safetensors").items()}
    stock = AutoencoderKLQwenImage(base_dim=8, input_channels=4).eval()
    stock.load_state_dict(weights)
    mean = stock.encode(layer(size)[None, :, None] * 2 - 1).latent_dist.mode()
    return {"latent": mean, "decoded": ((stock.decode(mean).sample[0, :, 0] + 1) / 2).clamp(0, 1)}


def text_encoder(folder: Path):
    """The fixtures' tiny Qwen2.5-VL, by way of a folder in the key layout of the published checkpoints."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text((GOLDEN / "text/encoder/config.json").read_text())
    weights = load_file(GOLDEN / "text/encoder/te_tiny.safetensors")
    table = torch.zeros(152064, 48)
    table[weights.pop("embed_rows.ids")] = weights.pop("embed_rows.weight")
    weights["model.embed_tokens.weight"] = table
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def prompt(sizes: list[tuple[int, int]]) -> tuple[list[int], list[torch.Tensor]]:
    """Token ids with one image token per picture, and uint8 pictures [H, W, 3] of those sizes."""
    ids = load_file(GOLDEN / "text/embeddings.safetensors")["resized.ids"].flatten().tolist()
    first, last = ids.index(VISION[0]), len(ids) - ids[::-1].index(VISION[2])
    generator = torch.Generator().manual_seed(7)
    pictures = [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in sizes]
    return ids[:first] + VISION * len(sizes) + ids[last:], pictures


def prompts(folder: Path) -> dict[str, torch.Tensor]:
    """{name}.ids, {name}.picture{i} and {name}.embeds [1, L, 48] of `PROMPTS`, the template's 64 tokens dropped.

    The library's own: transformers' answer for such a prompt differs between its releases, see `omnialpha.model.text`.
    """
    from PIL import Image

    from omnialpha.model.text import encode_ids

    encoder, found = text_encoder(folder), {}
    for name, sizes in PROMPTS.items():
        ids, pictures = prompt(sizes)
        embeds = encode_ids(encoder, ids, [Image.fromarray(picture.numpy()) for picture in pictures])
        found |= {f"{name}.picture{i}": picture for i, picture in enumerate(pictures)}
        found |= {f"{name}.ids": torch.tensor(ids), f"{name}.embeds": embeds[:, 64:].contiguous()}
    return found


def write(folder: Path) -> None:
    """Everything above as files, for a Python without diffusers."""
    folder.mkdir(parents=True)
    write_lora(folder / "lora/pytorch_lora_weights.safetensors")
    levels = {f"{steps}.{n}": scheduler(steps, n).sigmas for steps in STEPS for n in TOKENS}
    runs = {
        f"{name}.{key}": tensor.contiguous()
        for name, run in RUNS.items()
        for key, tensor in {
            **draw(run),
            "out": sample(run, folder / "lora/pytorch_lora_weights.safetensors" if run.lora else None),
        }.items()
    }
    pictures = {
        f"{name}.{key}": tensor
        for name, size in PICTURES.items()
        for key, tensor in {"layer": layer(size), **vae(size)}.items()
    }
    save_file(levels, folder / "sigmas.safetensors")
    save_file(runs, folder / "runs.safetensors", {name: json.dumps(vars(run)) for name, run in RUNS.items()})
    save_file(pictures, folder / "pictures.safetensors")
    save_file(prompts(folder / "text_encoder"), folder / "prompts.safetensors")
