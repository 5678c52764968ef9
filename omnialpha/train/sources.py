"""Where batches come from: a cache of latents, or pictures that are encoded on the fly.

`source.batches(step, process)` is a pure function of the seed, the step and the process, so a run that goes on after it
was killed sees what it would have seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from ..config import from_dict
from ..data.examples import STACK_INSTRUCTION, SizeRule, caption_of
from ..data.records import Triplet, read_records
from ..data.stream import ExampleStream
from ..errors import OmniAlphaError
from ..json_files import read_json
from ..model.text import condition_image
from ..tasks import TASKS
from .cache import CHANNELS, NOTE, encode_pictures, words_of
from .config import CacheConfig, TransformerConfig


@dataclass
class Batch:
    """Samples of one task that go through the model together.

    Attributes:
        task: one of the 21 tasks, "supervised" or "stack".
        instructions: one per sample; "" where the instruction was dropped.
        inputs: per input layer, normalised latents [B, 16, h, w].
        seen: per input layer, what the text encoder sees of it, uint8 [B, H, W, 3].
        targets: per target layer, back to front, normalised latents [B, 16, h, w].
    """

    task: str
    instructions: list[str]
    inputs: list[torch.Tensor]
    seen: list[torch.Tensor]
    targets: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.instructions)


def instruction_for(task: str, words, rng: np.random.Generator, dropout: float, caption_rate: float) -> str:
    """What a cached sample is told: nothing at all by the chance `dropout`; else the task's wording with its caption.

    `words` are a triplet's captions by role, a stack's captions, or a supervised example's prompt.
    """
    if rng.random() < dropout:
        return ""
    if isinstance(words, str):
        return words
    row = TASKS.get(task)
    if row is None:
        return STACK_INSTRUCTION.format(count=len(words))
    wants = row.needs_text or (row.text == "optional" and rng.random() < caption_rate)
    return row.fill(caption_of(Triplet("", {}, words), row) if wants else "")


class CacheSource:
    """Batches from the shards of `train cache`.

    Args:
        config: task weights, batch size, groups, dropout, seed.
        weights: how often each task is drawn.

    Raises:
        OmniAlphaError: the folder is no cache, a shard cannot be read, or a task has no shard.
    """

    def __init__(self, config: TransformerConfig):
        assert config.cache, "a configuration has a cache or a stream"
        folder = Path(config.cache)
        if not (folder / NOTE).is_file():
            raise OmniAlphaError(f"{folder} is no cache of latents. Make one with: python -m omnialpha train cache")
        self.config, self.note = config, read_json(folder / NOTE)
        channels = folder / CHANNELS
        self.channels = read_json(channels, list) if channels.is_file() else None
        self.shards: list[tuple[dict[str, torch.Tensor], list]] = []
        self.by_task: dict[str, list[int]] = {task: [] for task, weight in config.weights.items() if weight > 0}
        for path in sorted(folder.glob("*.safetensors")):
            tensors, tasks, words = _read_shard(path)
            for task in tasks:
                self.by_task.get(task, []).append(len(self.shards))
            self.shards.append((tensors, words))
        lacking = [task for task, shards in self.by_task.items() if not shards]
        if lacking:
            raise OmniAlphaError(f"{folder} holds nothing for {', '.join(lacking)}: cache data that can, or weight 0.")
        self.tasks = list(self.by_task)
        self.shares = _shares(config.weights, self.tasks)

    @property
    def encoding(self) -> CacheConfig:
        """How the latents were made: sizes, and the VAE."""
        return from_dict(CacheConfig, self.note["config"], f"{self.config.cache}/{NOTE}")

    def captions(self) -> set[str]:
        """Every text that training may see."""
        return {text for _, words in self.shards for item in words for text in _texts(item)}

    def batches(self, step: int, process: int) -> list[Batch]:
        """The batches of a step; every process gets the same tasks, and samples of its own."""
        which = np.random.default_rng([self.config.seed, step])
        rng = np.random.default_rng([self.config.seed, step, process + 1])
        chosen = which.choice(len(self.tasks), self.config.groups, p=self.shares)
        return [self._draw(self.tasks[index], rng) for index in chosen]

    def _draw(self, task: str, rng: np.random.Generator) -> Batch:
        tensors, words = self.shards[self.by_task[task][rng.integers(len(self.by_task[task]))]]
        rows = rng.integers(len(words), size=self.config.batch)
        inputs, targets = roles_of(task, tensors)
        picked = {role: tensors[f"index.{role}"][torch.from_numpy(rows)] for role in (*inputs, *targets)}
        dropout, caption_rate = self.config.instruction_dropout, self.config.caption_rate
        return Batch(
            task,
            [instruction_for(task, words[row], rng, dropout, caption_rate) for row in rows],
            [tensors[role][picked[role]].float() for role in inputs],
            [tensors[f"seen.{role}"][picked[role]] for role in inputs],
            [tensors[role][picked[role]].float() for role in targets],
        )


class ImageSource:
    """Batches of one sample each, from pictures that the VAE encodes on the fly.

    Args:
        config: its `stream` says which data; a step takes `batch` x `groups` examples per process.
        vae: the RGBA VAE, on the device to encode on.
        processes: how many processes train.
    """

    channels = None

    def __init__(self, config: TransformerConfig, vae, processes: int = 1):
        self.config, self.vae_model, self.processes, part = config, vae, processes, config.stream
        assert part, "a configuration has a cache or a stream"
        records = [record for data in part.data for record in read_records(data.path, data.images).of_split(data.split)]
        rule = SizeRule(part.pixel_budget, part.size_multiple)
        self.stream = ExampleStream(
            records,
            config.weights,
            seed=config.seed,
            rule=rule,
            augmentations=part.augmentations,
            caption_rate=config.caption_rate,
        )

    @property
    def encoding(self) -> CacheConfig:
        """How pictures are encoded: sizes, and the VAE."""
        assert self.config.stream
        return self.config.stream

    def captions(self) -> set[str]:
        """Every text that training may see."""
        return {text for group in self.stream.by_task.values() for item in group for text in _texts(words_of(item))}

    def batches(self, step: int, process: int) -> list[Batch]:
        """The batches of a step."""
        count = self.config.batch * self.config.groups
        first = (step * self.processes + process) * count
        return [self._encode(self.stream.example(first + index), first + index) for index in range(count)]

    def _encode(self, example, index: int) -> Batch:
        drop = np.random.default_rng([self.config.seed, index, 1]).random() < self.config.instruction_dropout
        encode = lambda layer: encode_pictures(self.vae_model, [layer]).float()  # noqa: E731
        seen = [torch.from_numpy(np.array(condition_image(layer)))[None] for layer in example.inputs]
        return Batch(
            example.task,
            ["" if drop else example.instruction],
            [encode(layer) for layer in example.inputs],
            seen,
            [encode(layer) for layer in example.targets],
        )


def roles_of(task: str, tensors: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Names of a task's input and target layers in a shard."""
    if task in TASKS:
        return list(TASKS[task].inputs), list(TASKS[task].targets)
    names = sorted(key for key in tensors if "." not in key)
    return [name for name in names if name.startswith("input")], [name for name in names if name.startswith("target")]


def _texts(words) -> Iterable[str]:
    """The texts in what `words_of` gives."""
    return [words] if isinstance(words, str) else words.values() if isinstance(words, dict) else words


def _read_shard(path: Path) -> tuple[dict[str, torch.Tensor], list[str], list]:
    try:
        with safe_open(path, "pt") as file:
            note = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        return tensors, json.loads(note["tasks"]), json.loads(note["words"])
    except Exception as error:  # safetensors has error classes of its own
        raise OmniAlphaError(
            f"The shard {path} cannot be read: {error}. Remove it and run `train cache` again, which makes it anew."
        ) from error


def _shares(weights: Mapping[str, float], tasks: list[str]) -> list[float]:
    total = sum(weights[task] for task in tasks)
    return [weights[task] / total for task in tasks]
