"""Pictures for training a VAE: layers of every role, at several sizes, now and then opaque or with hidden colour."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...checks import size_of
from ...data.examples import opaque, read_rgba, to_layer
from ...data.guides import DRAW
from ...data.records import Record, StackRecord, Supervised, Triplet, read_records
from ...errors import OmniAlphaError
from ...layers.resizing import resize

if TYPE_CHECKING:
    from .config import VAEConfig

LOG = logging.getLogger(__name__)
TRIES = 20  # unreadable pictures in a row before the data counts as broken


class Drawn(NamedTuple):
    """A batch of n pictures.

    Attributes:
        shown: what the encoder is shown, [n, 4, h, w].
        truth: what should come out; the two differ in what lies hidden under alpha 0.
        objects: alpha of the object in each picture, [n, h, w]; NaN throughout where nobody says.
        broken: (record, reason) of pictures that could not be read.
    """

    shown: Tensor
    truth: Tensor
    objects: Tensor
    broken: list[tuple[str, str]]


class Pictures(Dataset):
    """Draws batches from data sets; batch number t of process p is a pure function of (seed, t, p).

    Pictures are scaled to cover the size and cropped at random: nothing is stretched.

    Args:
        config: its `data`, `mix`, `sizes`, `batch`, `seed`, `blend` and `hidden`.
        process: whose batches.

    Raises:
        OmniAlphaError: no data, or none with a role of `mix`.
    """

    def __init__(self, config: VAEConfig, process: int = 0):
        self.config, self.process = config, process
        self.records: list[Record] = []
        for part in config.data:
            reading = read_records(part.path, part.images)
            for problem in reading.problems:
                LOG.warning("%s, line %d: %s is left out: %s", part.path, problem.line, problem.id, problem.reason)
            self.records += reading.of_split(part.split)
        self.by_role = {role: _having(self.records, role) for role, share in config.mix.items() if share > 0}
        lacking = [role for role, records in self.by_role.items() if not records]
        if lacking:
            raise OmniAlphaError(f"No record has a {lacking[0]}: give data that has, or take it out of `mix`.")
        total = sum(config.mix[role] for role in self.by_role)
        self.shares = [config.mix[role] / total for role in self.by_role]

    def __getitem__(self, number: int) -> Drawn:
        rng = np.random.default_rng([self.config.seed, number, self.process])
        size = self.config.sizes[number % len(self.config.sizes)]
        broken: list[tuple[str, str]] = []
        pictures, objects = zip(*(self._picture(rng, size, broken) for _ in range(self.config.batch)))
        truth = blend_some(torch.stack(pictures), self.config.blend, rng)
        return Drawn(hide_some(truth, self.config.hidden, rng), truth, torch.stack(objects), broken)

    def batches(self, numbers: range) -> Iterator[Drawn]:
        """Those batches in turn, read ahead by the configuration's workers."""
        workers = self.config.workers
        # A generator of its own: the loader would otherwise take a number from torch's common one.
        loader = DataLoader(self, batch_size=None, sampler=numbers, num_workers=workers, generator=torch.Generator())
        named: set[str] = set()
        for drawn in loader:
            for record, reason in drawn.broken:
                if record not in named:
                    LOG.warning("skipped %s: %s", record, reason)
                named.add(record)
            yield drawn

    def _picture(self, rng: np.random.Generator, size: tuple[int, int], broken: list[tuple[str, str]]):
        """(picture [4, h, w], alpha of its object [h, w])."""
        for _ in range(TRIES):
            role = list(self.by_role)[rng.choice(len(self.by_role), p=self.shares)]
            record = self.by_role[role][rng.integers(len(self.by_role[role]))]
            try:
                return self._with_object(record, role, size, rng)
            except OmniAlphaError as error:
                broken.append((record.id, str(error)))
        raise OmniAlphaError(f"{TRIES} pictures in a row cannot be read; the last problem: {broken[-1][1]}")

    def _with_object(self, record: Triplet | StackRecord, role: str, size: tuple[int, int], rng: np.random.Generator):
        pixels = _pixels(record, role, rng)
        window = draw_window(pixels.shape[:2], size, rng)
        picture, unknown = cover(to_layer(pixels), size, window), torch.full(size, math.nan)
        if role == "foreground":
            return picture, picture[3]
        if role == "background":
            return picture, torch.zeros(size)
        if role == "composite" and self.config.loss.get("objects") and isinstance(record, Triplet):
            return picture, cover(to_layer(read_rgba(record.pictures["foreground"])), size, window)[3]
        return picture, unknown


def _having(records: list[Record], role: str) -> list[Triplet | StackRecord]:
    """The records that have a picture of that role; guides are drawn from a triplet's alpha."""

    def has(record: Record) -> bool:
        if isinstance(record, StackRecord):
            return role != "guide"
        return isinstance(record, Triplet) and ("foreground" if role == "guide" else role) in record.pictures

    return [record for record in records if not isinstance(record, Supervised) and has(record)]


def _pixels(record: Triplet | StackRecord, role: str, rng: np.random.Generator) -> np.ndarray:
    """A picture of a record as straight float32 [h, w, 4]."""
    if isinstance(record, StackRecord):
        path = {"background": record.layers[0], "composite": record.composite}.get(role)
        return read_rgba(path or record.layers[rng.integers(1, len(record.layers))])
    if role == "guide":
        alpha = np.ascontiguousarray(read_rgba(record.pictures["foreground"])[..., 3])
        return opaque(DRAW[list(DRAW)[rng.integers(len(DRAW))]](alpha, rng))
    return read_rgba(record.pictures[role])


def covering(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture of `shape` when it is scaled until it covers `size`."""
    scale = max(wanted / side for wanted, side in zip(size, shape))
    height, width = (math.ceil(side * scale - 1e-6) for side in shape)
    return height, width


def draw_window(shape: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """(top, left) of a random crop of `size` from a picture of `shape` that is scaled to cover it."""
    top, left = (int(rng.integers(side - wanted + 1)) for side, wanted in zip(covering(shape, size), size))
    return top, left


def cover(layer: Tensor, size: tuple[int, int], window: tuple[int, int] | None = None) -> Tensor:
    """A layer [4, H, W] scaled until it covers `size` (h, w), and cropped to it from `window` on, or in the middle."""
    scaled = covering(size_of(layer), size)
    layer = resize(layer, scaled)
    top, left = window or ((side - wanted) // 2 for side, wanted in zip(scaled, size))
    return layer[:, top : top + size[0], left : left + size[1]].clamp(0, 1)


def blend_some(pictures: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Each picture, by chance, put on a random solid colour: it is opaque then."""
    chosen = torch.from_numpy(rng.random((len(pictures), 1, 1, 1)) < chance)
    alpha = pictures[:, 3:]
    flat = pictures[:, :3] * alpha + random_colours(len(pictures), rng) * (1 - alpha)
    return torch.where(chosen, torch.cat([flat, torch.ones_like(alpha)], 1), pictures)


def hide_some(pictures: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Each picture, by chance, with a random colour where alpha is 0: what nobody sees must not matter."""
    chosen = torch.from_numpy(rng.random((len(pictures), 1, 1, 1)) < chance)
    coloured = torch.where(pictures[:, 3:] > 0, pictures[:, :3], random_colours(len(pictures), rng))
    return torch.cat([torch.where(chosen, coloured, pictures[:, :3]), pictures[:, 3:]], 1)


def random_colours(count: int, rng: np.random.Generator) -> Tensor:
    """[count, 3, 1, 1] in [0, 1]."""
    return torch.from_numpy(rng.random((count, 3, 1, 1), dtype=np.float32))
