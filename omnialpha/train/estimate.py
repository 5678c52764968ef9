"""What a run will need, before it starts: memory by what fills it, arithmetic per step, and time per step.

Everything is counted from shapes, so a full-size model is planned on the meta device without its weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ..tasks import TASKS
from .config import LoraConfig, TransformerConfig

GIB = 2**30
TEXT_TOKENS = 320  # of an instruction with one or two pictures at full size; a guess that a few hundred do not change
# Values that one block keeps per token for its backward pass, in units of its width: inputs of both norms, of the
# projections, queries, keys and values before and after their norms, the attention's result, and the MLP at four times
# the width before and after its activation. `tests/test_train_plan.py` holds it against a measurement.
KEPT = 34
BACKWARD = 3  # forward + backward, in forwards; one more with checkpointing
# Full size, for planning without weights: Qwen-Image's published config.json.
FULL_SIZE: dict[str, Any] = {
    "num_layers": 60,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 3584,
}


@dataclass(frozen=True)
class Estimate:
    """Bytes by use, floating point operations per step of one process, and what they rest on."""

    parameters: int
    trained: int
    tokens: int
    bytes: dict[str, int]
    flops: float

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.bytes.values())


def make_estimate(
    shapes: dict[str, tuple[int, ...]],
    width: int,
    blocks: int,
    config: TransformerConfig,
    *,
    pixels: int,
    text_tokens: int = TEXT_TOKENS,
    weight_bytes: int = 4,
    extra: int = 0,
) -> Estimate:
    """Estimate a run.

    Args:
        shapes: the transformer's tensors.
        width, blocks: of the transformer.
        config: of the run.
        pixels: of all layers of a sequence together.
        text_tokens: tokens of the prompt.
        weight_bytes: of a frozen or trained weight as it is kept: 2 for bfloat16.
        extra: parameters trained beside the transformer (a text encoder).
    """
    count = sum(_elements(shape) for shape in shapes.values())
    trained = (lora_parameters(shapes, config.lora) if config.lora else count) + extra
    samples = config.batch if config.cache else 1
    tokens = pixels // 256 + text_tokens  # a token is 16 x 16 pixels
    activation_bytes = 2 if config.precision == "bf16" else 4
    per_block = KEPT * width * tokens * activation_bytes
    if config.gradient_checkpointing:
        activations = blocks * 2 * width * tokens * activation_bytes + per_block
    else:
        activations = blocks * per_block
    states = {"adamw": 2, "muon": 1}[config.optimizer]
    own = 4 if config.lora else weight_bytes
    sizes = {
        "weights": (count + extra) * weight_bytes + (trained * own if config.lora else 0),
        "gradients": trained * own,
        "optimiser": trained * 4 * states,
        "averaged weights": trained * own,
        "activations": activations * samples,
    }
    # 2 operations per weight and token; a block's weights are split between picture and text tokens.
    matrices = {name: _elements(shape) for name, shape in shapes.items() if len(shape) == 2}
    in_blocks = sum(count for name, count in matrices.items() if "transformer_blocks" in name)
    modulation = sum(count for name, count in matrices.items() if "_mod" in name)
    forward = 2 * (in_blocks - modulation) / 2 * tokens + 2 * modulation + 4 * blocks * width * tokens**2
    passes = BACKWARD + (1 if config.gradient_checkpointing else 0) - (1 if config.lora else 0)
    return Estimate(count, trained, tokens, sizes, forward * passes * config.batch * config.groups)


def _elements(shape: Iterable[int]) -> int:
    return math.prod(shape)


def lora_parameters(shapes: dict[str, tuple[int, ...]], lora: LoraConfig) -> int:
    """How many parameters adapters of this rank have."""
    ends = tuple(f"{target}.weight" for target in lora.targets)
    return sum(lora.rank * sum(shape) for name, shape in shapes.items() if name.endswith(ends) and len(shape) == 2)


def full_size_shapes() -> dict[str, tuple[int, ...]]:
    """The public transformer's tensors, from its published sizes alone."""
    from diffusers import QwenImageTransformer2DModel

    with torch.device("meta"):
        model = QwenImageTransformer2DModel(patch_size=2, in_channels=64, out_channels=16, **FULL_SIZE)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int = 0) -> float:
    """Floating point operations per second of one matrix product on this device, measured in about half a second."""
    side = side or (1024 if device.type == "cpu" else 8192)
    a = torch.randn(side, side, device=device, dtype=dtype)

    def timed(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once = timed(1) and timed(1)
    times = max(1, min(50, int(0.4 / max(once, 1e-6))))
    return 2 * side**3 * times / timed(times)


def estimate_text(plan: Estimate, seconds: float | None = None, title: str = "This run") -> str:
    """A plan as a few lines for people."""
    share = f"{plan.trained / 1e6:,.1f} M trained" if plan.trained != plan.parameters else "all trained"
    lines = [f"{title}: {plan.parameters / 1e6:,.1f} M parameters in the transformer, {share}; {plan.tokens} tokens"]
    lines += [f"  {name:17}{size / GIB:9.2f} GiB" for name, size in plan.bytes.items()]
    lines.append(f"  {'memory':17}{plan.total / GIB:9.2f} GiB")
    lines.append(f"  {'arithmetic':17}{plan.flops / 1e12:9.3f} TFLOP a step")
    if seconds is not None:
        lines.append(
            f"  {'time':17}{seconds:9.2f} s a step at this device's matrix product rate; expect 1.5 to 3 times it"
        )
    return "\n".join(lines)


def describe_plan(config: TransformerConfig, parts, accelerator) -> str:
    """The plan of a run whose models are built: what is printed before it starts."""
    shapes = {
        name: tuple(tensor.shape) for name, tensor in parts.transformer.state_dict().items() if "lora_" not in name
    }
    shapes = {name.replace(".base_layer", ""): shape for name, shape in shapes.items()}
    extra = sum(param.numel() for param in parts.text_encoder.parameters() if param.requires_grad)
    inner = parts.transformer.config
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    pixels = parts.settings.pixel_budget
    plan = make_estimate(
        shapes,
        inner.num_attention_heads * inner.attention_head_dim,
        inner.num_layers,
        config,
        pixels=pixels,
        text_tokens=60 if extra else TEXT_TOKENS,
        weight_bytes=next(parts.transformer.parameters()).element_size(),
        extra=extra,
    )
    seconds = plan.flops / matmul_rate(accelerator.device, dtype)
    tasks = sum(1 for task in config.weights if config.weights[task] > 0)
    head = f"{tasks} of {len(TASKS)} tasks, {config.steps} steps of {config.batch} x {config.groups} samples"
    head += f" on {accelerator.num_processes} {'process' if accelerator.num_processes == 1 else 'processes'}"
    return f"{estimate_text(plan, seconds)}\n  {head}"


def describe_full_size(config: TransformerConfig) -> str:
    """Plans for the public model, full and LoRA, with and without checkpointing, whatever the machine."""
    import dataclasses

    shapes, width = full_size_shapes(), FULL_SIZE["num_attention_heads"] * FULL_SIZE["attention_head_dim"]
    texts = []
    for lora in (config.lora or LoraConfig(), None):
        for checkpointing in (True, False):
            own = dataclasses.replace(
                config,
                lora=lora,
                gradient_checkpointing=checkpointing,
                precision="bf16",
                checkpoint="public",
                build=None,
                train_text_encoder=False,
                optimizer="adamw",
            )
            plan = make_estimate(shapes, width, FULL_SIZE["num_layers"], own, pixels=1024**2, weight_bytes=2)
            kind = f"LoRA of rank {lora.rank}" if lora else "Full training"
            texts.append(estimate_text(plan, title=f"{kind}, {'with' if checkpointing else 'without'} checkpointing"))
    return "\n\n".join(texts)
