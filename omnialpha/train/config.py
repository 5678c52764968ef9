"""What can be set about training. YAML files in `configs/` fill these; `docs/training.md` explains them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import require
from ..data.augment import SCENE, check_augmentations
from ..errors import OmniAlphaError
from ..model.rope import AXES
from ..tasks import FAMILIES, TASKS

EXTRA_TASKS = ("supervised", "stack")  # what records that are no triplets train


@dataclass
class DataPart:
    """One data set of a mixture.

    Attributes:
        path: a data set folder or a JSONL file.
        tasks: the tasks it serves; empty for all it can.
        images: folder that a JSONL file's paths are relative to.
        split: which of its records to take; None for all.
    """

    path: str
    tasks: tuple[str, ...] = ()
    images: str | None = None
    split: str | None = "train"


@dataclass
class CacheConfig:
    """`train cache`: pictures encoded once, so that training runs no VAE.

    Attributes:
        data: the data sets.
        vae: folder or file of the RGBA VAE.
        pixel_budget, size_multiple: sizes of the layers, as in `omnialpha.json`.
        every_length: encode each triplet for every sequence length that its tasks have; False draws one length for each
            chunk of triplets, in proportion to `lengths`.
        lengths: layers in a sequence (inputs and targets) -> share of chunks, where `every_length` is False.
        chunk: records in a shard.
        augmentations: names from `omnialpha.data.augment.SCENE`, applied once, when encoding.
        seed: of guides, augmentations and lengths.
    """

    data: tuple[DataPart, ...]
    vae: str
    pixel_budget: int = 1024 * 1024
    size_multiple: int = 32
    every_length: bool = True
    lengths: dict[str, float] = field(default_factory=lambda: {"2": 4, "3": 4, "4": 1})
    chunk: int = 192
    augmentations: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        check_augmentations(self.augmentations, SCENE)  # a cached picture is shown to one task, the answer of another
        for part in self.data:
            check_tasks(part.tasks, "data.tasks")


@dataclass
class Architecture:
    """Sizes of a transformer and text encoder built from nothing: the public checkpoint's classes, smaller.

    Attributes:
        blocks, heads, head_dim: of the transformer; its width is heads x head_dim.
        rope_axes: shares of head_dim for layer, row and column.
        text_width, text_layers, text_heads: of the text encoder.
        vision_width, vision_layers: of its vision tower.
        vocabulary: tokens of the tokenizer.
    """

    blocks: int = 6
    heads: int = 4
    head_dim: int = 32
    rope_axes: tuple[int, int, int] = (8, 12, 12)
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    vision_width: int = 64
    vision_layers: int = 2
    vocabulary: int = 2048

    def __post_init__(self):
        if sum(self.rope_axes) != self.head_dim:
            raise OmniAlphaError(f"rope_axes {self.rope_axes} have to add up to head_dim, {self.head_dim}.")


@dataclass
class LoraConfig:
    """Low-rank adapters in place of full training (Hu et al., arXiv 2106.09685); alpha is the rank.

    Attributes:
        rank: inner dimension.
        targets: ends of module names that get an adapter.
    """

    rank: int = 32
    targets: tuple[str, ...] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
        "img_mlp.net.0.proj",
        "img_mlp.net.2",
        "txt_mlp.net.0.proj",
        "txt_mlp.net.2",
    )


@dataclass
class Times:
    """How noise levels t in (0, 1] are drawn.

    Attributes:
        shape: "uniform"; "late", denser near pure noise, 2u / (1 + u); or "logit_normal" (Esser et al. 2024).
        at_one: share of samples at exactly t = 1, where a single sampling step starts.
    """

    shape: str = "logit_normal"
    at_one: float = 0.0

    def __post_init__(self):
        if self.shape not in ("uniform", "late", "logit_normal") or not 0 <= self.at_one <= 1:
            raise OmniAlphaError(
                f"times: shape {self.shape!r}, at_one {self.at_one}; expected uniform, late or logit_normal, and a "
                "share from 0 to 1."
            )


@dataclass
class TransformerConfig:
    """`train transformer`: joint flow matching on all tasks (paper section 3.3).

    Attributes:
        cache: folder of `train cache`; or None with `stream`, which encodes while training.
        stream: what to encode on the fly.
        checkpoint: folder to start from; None builds `build` from nothing.
        build: sizes of a new model.
        weights: task -> how often it is drawn, relative to the others.
        lora: train adapters; None trains every weight.
        train_text_encoder: train it too (small models only; a full-size one stays as it is).
        rope: "bil" for MSRoPE-BiL, "2d" for all layers at z = 0 (an ablation).
        steps: optimiser steps.
        batch: samples of one task that go through the model together, per process.
        groups: such batches per step and process, each of a task of its own (gradient accumulation).
        optimizer: "adamw", or "muon" for inner matrices with AdamW for the rest.
        lr, muon_lr, weight_decay, clip: of the optimiser.
        warm, schedule, hold: steps of warm-up; then "constant", "cosine", or "linear" after `hold` of the run.
        ema: decay of the averaged weights that are saved.
        times: "default", a family or a task -> noise levels.
        decoder_weighted: weigh latent channels by how much they move the decoded picture.
        instruction_dropout: how often the instruction is left empty, for guidance.
        caption_rate: how often a task that can do without text gets its caption.
        gradient_checkpointing: recompute activations in the backward pass.
        precision: "fp32" or "bf16".
        seed: of weights, order, noise.
        save_every, log_every, sheet_every: in steps; 0 for never.
        sheet_data: data set whose first records the sample sheets show.
    """

    weights: dict[str, float]
    steps: int
    cache: str | None = None
    stream: CacheConfig | None = None
    checkpoint: str | None = None
    build: Architecture | None = None
    lora: LoraConfig | None = None
    train_text_encoder: bool = False
    rope: str = "bil"
    batch: int = 1
    groups: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-4
    muon_lr: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    warm: int = 100
    schedule: str = "constant"
    hold: float = 0.5
    ema: float = 0.999
    times: dict[str, Times] = field(default_factory=lambda: {"default": Times()})
    decoder_weighted: bool = False
    instruction_dropout: float = 0.05
    caption_rate: float = 0.5
    gradient_checkpointing: bool = False
    precision: str = "fp32"
    seed: int = 0
    save_every: int = 500
    log_every: int = 50
    sheet_every: int = 0
    sheet_data: str | None = None

    def __post_init__(self):
        check_tasks(self.weights, "weights")
        known = {"default", *FAMILIES, *TASKS, *EXTRA_TASKS}
        checks = {
            "weights": (sum(self.weights.values()) > 0 <= min(self.weights.values(), default=0), "a weight above 0"),
            "cache": ((self.cache is None) != (self.stream is None), "either cache or stream"),
            "checkpoint": ((self.checkpoint is None) != (self.build is None), "either checkpoint or build"),
            "rope": (self.rope in AXES, " or ".join(AXES)),
            "optimizer": (self.optimizer in ("adamw", "muon"), "adamw or muon"),
            "schedule": (self.schedule in ("constant", "cosine", "linear"), "constant, cosine or linear"),
            "precision": (self.precision in ("fp32", "bf16"), "fp32 or bf16"),
            "steps": (self.steps >= 1, "1 or more"),
            "batch": (self.batch >= 1, "1 or more"),
            "groups": (self.groups >= 1, "1 or more"),
            "hold": (0 <= self.hold < 1, "a share below 1"),
            "times": (set(self.times) <= known, f"keys among {', '.join(sorted(known))}"),
            "lora": (not (self.lora and self.build), "a checkpoint to adapt, not a new model"),
            "train_text_encoder": (not (self.train_text_encoder and self.lora), "full training"),
        }
        require(self, checks)

    def times_of(self, task: str) -> Times:
        """The noise levels of a task: its own, its family's, or the default."""
        family = TASKS[task].family if task in TASKS else task
        return self.times.get(task) or self.times.get(family) or self.times.get("default") or Times()


def check_tasks(names, where: str) -> None:
    """OmniAlphaError for a name that is none of the 21 tasks, "supervised" or "stack"."""
    for name in names:
        if name not in TASKS and name not in EXTRA_TASKS:
            from ..tasks import get_task

            try:
                get_task(name)
            except OmniAlphaError as error:
                raise OmniAlphaError(f"{where}: {error}") from None
