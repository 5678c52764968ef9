"""Encode a data set's pictures once: training then runs no VAE (`train cache`).

A shard is a safetensors file of one sequence length and one picture size. It holds every picture once, by role, as a
normalised latent and as the text encoder's vision tower sees it; `index.<role>` says which one each record uses.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import to_dict
from ..data.augment import augment
from ..data.examples import SizeRule, derive, opaque, read_rgba, tasks_of, to_layer
from ..data.guides import DRAW
from ..data.records import Record, StackRecord, Supervised, Triplet, read_records
from ..errors import OmniAlphaError
from ..files.opening import open_picture
from ..files.run_folder import claim
from ..files.writing import DiskError, write_json, write_tensors
from ..layers.resizing import resize
from ..model.single_frame import single_frame
from ..model.text import condition_image
from ..model.vae import load_vae
from ..tasks import GUIDES, TASKS
from .config import CacheConfig

BATCH = 8  # pictures that go through the VAE together
NOTE, CHANNELS = "cache.json", "channels.json"


@dataclass(frozen=True)
class ShardJob:
    """One shard to make: records of one shape, a sequence length, and the tasks it will serve."""

    name: str
    records: tuple[Record, ...]
    layers: int
    tasks: tuple[str, ...]
    seed: int


def write_cache(config: CacheConfig, out: Path | str, *, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[int, int]]:
    """Make the shards, or those that are missing; yields (finished, all).

    Args:
        config: what to encode.
        out: folder; new, or one that the same configuration and VAE began.
        share: (k, n) makes every n-th shard from the k-th on, for several processes.

    Raises:
        OmniAlphaError: no data, no VAE, the folder belongs to another configuration, or the disk is full.
    """
    out = Path(out)
    vae = single_frame(load_vae(config.vae)).requires_grad_(False)
    jobs = list(plan_jobs(config))
    _claim(out, config, vae)
    if share[0] == 0 and not (out / CHANNELS).is_file():
        write_json(out / CHANNELS, decoder_sensitivity(vae, jobs[0], config))
    mine = [job for job in jobs if not (out / f"{job.name}.safetensors").is_file()][share[0] :: share[1]]
    problems = []
    for done, job in enumerate(mine):
        yield done, len(mine)
        try:
            _write_shard(vae, job, config, out)
        except DiskError:
            raise  # other problems cost one shard
        except OmniAlphaError as error:
            problems.append({"shard": job.name, "reason": str(error)})
    if problems:
        write_json(out / f"problems-{share[0]}.json", problems)
    yield len(mine), len(mine)


def plan_jobs(config: CacheConfig) -> Iterator[ShardJob]:
    """The shards that a configuration asks for, always in the same order under the same names."""
    for number, part in enumerate(config.data):
        records = read_records(part.path, part.images).of_split(part.split)
        wanted = set(part.tasks)
        by_shape: dict[tuple, list[Record]] = defaultdict(list)
        for record in records:
            tasks = tuple(task for task in tasks_of(record) if not wanted or task in wanted)
            if tasks:
                by_shape[(tasks, _shape(record))].append(record)
        if not by_shape:
            raise OmniAlphaError(f"{part.path}: no record can serve {', '.join(wanted) or 'any task'}.")
        index = 0
        for (tasks, shape), group in by_shape.items():
            lengths = sorted({_length(task, shape) for task in tasks})
            for start in range(0, len(group), config.chunk):
                rng = np.random.default_rng([config.seed, number, index])
                chosen = lengths
                if not config.every_length and len(lengths) > 1:
                    odds = np.array([config.lengths.get(str(length), 0.0) for length in lengths])
                    chosen = [lengths[rng.choice(len(lengths), p=odds / odds.sum())]]
                for length in chosen:
                    serves = tuple(task for task in tasks if _length(task, shape) == length)
                    chunk = tuple(group[start : start + config.chunk])
                    yield ShardJob(f"{number}-{index:05d}-{length}", chunk, length, serves, config.seed + 7919 * index)
                index += 1


def words_of(record: Record) -> dict[str, str] | str | list[str]:
    """A triplet's captions by role, a supervised example's prompt, a stack's captions, one for each layer."""
    if isinstance(record, Supervised):
        return record.prompt
    if isinstance(record, StackRecord):
        return [*record.captions, *[""] * len(record.layers)][: len(record.layers)]
    return record.captions


def vae_print(vae) -> str:
    """A short hash of a VAE's weights: latents belong to the VAE that made them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def decoder_sensitivity(vae, job: ShardJob, config: CacheConfig, count: int = 16) -> list[float]:
    """How much each latent channel moves the decoded picture, mean 1 over the channels.

    The mean squared change of all four decoded channels under a small disturbance of one normalised latent channel,
    over a few pictures of a shard. A flow loss weighted so counts errors about as they will be seen.
    """
    tensors = encode_job(vae, job, config, most=count)
    latents = torch.cat([values[:count] for key, values in tensors.items() if _is_latent(key)]).float()[:count, :, None]
    mean, std = _statistics(vae)
    base = vae.decode(latents * std + mean).sample
    generator = torch.Generator().manual_seed(config.seed)
    moved = []
    for channel in range(latents.shape[1]):
        other = latents.clone()
        other[:, channel] += 0.3 * torch.randn(other[:, channel].shape, generator=generator)
        moved.append(float((vae.decode(other * std + mean).sample - base).pow(2).mean()))
    return [value / (sum(moved) / len(moved)) for value in moved]


def encode_job(vae, job: ShardJob, config: CacheConfig, most: int | None = None) -> dict[str, torch.Tensor]:
    """A shard's tensors; `most` looks at the first few records only."""
    rule = SizeRule(config.pixel_budget, config.size_multiple)
    records = job.records[:most]
    pictures: Any = _triplet_pictures if isinstance(records[0], Triplet) else _listed_pictures  # a shard holds one kind
    layers, index = pictures(records, job, rule, config)
    tensors = {f"index.{role}": torch.tensor(rows) for role, rows in index.items()}
    for role, stack in layers.items():
        tensors[role] = encode_pictures(vae, stack)
        tensors[f"seen.{role}"] = torch.stack([torch.from_numpy(np.array(condition_image(layer))) for layer in stack])
    return tensors


@torch.no_grad()
def encode_pictures(vae, layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Layers [4, H, W] of one size -> normalised latents [n, 16, h, w], float16."""
    mean, std = _statistics(vae)
    parts = [
        vae.encode((torch.stack(list(layers[start : start + BATCH])) * 2 - 1)[:, :, None]).latent_dist.mode()
        for start in range(0, len(layers), BATCH)
    ]
    return ((torch.cat(parts) - mean) / std)[:, :, 0].half().contiguous()


def _triplet_pictures(records: Sequence[Triplet], job: ShardJob, rule: SizeRule, config: CacheConfig):
    """(role -> layers, role -> index per record): each file once, and a guide of each kind per foreground."""
    roles = {role for task in job.tasks for role in (*TASKS[task].inputs, *TASKS[task].targets)}
    rng = np.random.default_rng([config.seed, job.seed])
    layers, index, known = defaultdict(list), defaultdict(list), {}
    for record in records:
        if config.augmentations:  # one draw for all layers of a record, so nothing can be shared
            whole = augment(
                {role: read_rgba(path) for role, path in record.pictures.items()}, config.augmentations, rng
            )
            pictures = {role: (f"{record.id}/{role}", layer) for role, layer in whole.items()}
        else:
            pictures = {role: (str(path), None) for role, path in record.pictures.items()}
        for role, (name, pixels) in pictures.items():
            if role not in roles and not (role == "foreground" and roles & set(GUIDES)):
                continue
            if name not in known:
                pixels = read_rgba(record.pictures[role]) if pixels is None else pixels
                known[name] = len(layers[role])
                size = rule.size(pixels.shape[0], pixels.shape[1], job.layers)
                layers[role].append(resize(to_layer(pixels), size))
                for guide in GUIDES if role == "foreground" else ():
                    if guide in roles:
                        plane = DRAW[guide](np.ascontiguousarray(pixels[..., 3]), rng)
                        layers[guide].append(resize(to_layer(opaque(plane)), size))
            index[role].append(known[name])
            for guide in GUIDES if role == "foreground" else ():
                if guide in roles:
                    index[guide].append(known[name])
    return layers, index


def _listed_pictures(records: Sequence[Record], job: ShardJob, rule: SizeRule, config: CacheConfig):
    """The same for stacks and supervised lists, whose pictures have places in place of roles."""
    layers, index = defaultdict(list), defaultdict(list)
    for number, record in enumerate(records):
        example = derive(record, job.tasks[0], np.random.default_rng([config.seed, number]), rule)
        for kind, pictures in (("input", example.inputs), ("target", example.targets)):
            for place, layer in enumerate(pictures):
                layers[f"{kind}{place}"].append(layer)
                index[f"{kind}{place}"].append(number)
    return layers, index


def _write_shard(vae, job: ShardJob, config: CacheConfig, out: Path) -> None:
    tensors = encode_job(vae, job, config)
    words = [words_of(record) for record in job.records]
    note = {
        "layers": str(job.layers),
        "tasks": json.dumps(job.tasks),
        "words": json.dumps(words),
        "ids": json.dumps([record.id for record in job.records]),
    }
    write_tensors(out / f"{job.name}.safetensors", tensors, note)


def _claim(out: Path, config: CacheConfig, vae) -> None:
    claim(out, {"config": to_dict(config), "vae": vae_print(vae)}, note=NOTE, what="a cache of latents")


def _statistics(vae) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


def _is_latent(key: str) -> bool:
    return not key.startswith(("index.", "seen."))


def _shape(record: Record) -> tuple:
    """What records have to share to lie in one shard: the sizes of their pictures, and how many there are."""
    files = record.files[:1] if isinstance(record, Triplet) else record.files
    try:
        sizes = []
        for path in files:
            with open_picture(path) as image:
                sizes.append(image.size)
    except OSError as error:
        raise OmniAlphaError(
            f"{files[0]} cannot be read as a picture: {error}. `data filter` finds all such."
        ) from error
    inputs = len(record.inputs) if isinstance(record, Supervised) else 0  # two in, one out is not one in, two out
    return (inputs, *sizes)


def _length(task: str, shape: tuple) -> int:
    """Layers in a sequence of this task."""
    return len(TASKS[task].inputs) + len(TASKS[task].targets) if task in TASKS else len(shape) - 1
