"""Pictures for training a VAE: layers of every role, at several sizes, now and then opaque or with hidden colour."""

from __future__ import annotations

import logging

import numpy as np
import torch

from ..data.examples import opaque, read_rgba, to_layer
from ..data.guides import DRAW
from ..data.records import Record, Stack, Triplet, read_records
from ..errors import OmniAlphaError
from ..resizing import resize
from .config import VAEConfig

LOG = logging.getLogger(__name__)
TRIES = 20  # unreadable pictures in a row before the data counts as broken


class Pictures:
    """Draws batches from data sets; a batch is a pure function of the seed, the step and the process.

    Args:
        config: its `data`, `mix`, `sizes`, `batch` and `seed`.

    Raises:
        OmniAlphaError: no data, or none with a role of `mix`.
    """

    def __init__(self, config: VAEConfig):
        self.config = config
        self.records: list[Record] = [
            record for part in config.data for record in read_records(part.path, part.images).of_split(part.split)
        ]
        self.by_role = {role: self._having(role) for role, share in config.mix.items() if share > 0}
        lacking = [role for role, records in self.by_role.items() if not records]
        if lacking:
            raise OmniAlphaError(f"No record has a {lacking[0]}: give data that has, or take it out of `mix`.")
        total = sum(config.mix[role] for role in self.by_role)
        self.shares = [config.mix[role] / total for role in self.by_role]
        self.broken: set[str] = set()

    def batch(self, step: int, process: int) -> torch.Tensor:
        """[n, 4, h, w] in [0, 1], straight alpha."""
        rng = np.random.default_rng([self.config.seed, step, process])
        size = tuple(self.config.sizes[step % len(self.config.sizes)])
        return torch.stack([self._picture(rng, size) for _ in range(self.config.batch)])

    def _picture(self, rng: np.random.Generator, size: tuple[int, int]) -> torch.Tensor:
        for _ in range(TRIES):
            role = list(self.by_role)[rng.choice(len(self.by_role), p=self.shares)]
            record = self.by_role[role][rng.integers(len(self.by_role[role]))]
            try:
                return resize(to_layer(_pixels(record, role, rng)), size).clamp(0, 1)
            except OmniAlphaError as error:
                if record.id not in self.broken:
                    LOG.warning("skipped %s: %s", record.id, error)
                self.broken.add(record.id)
        raise OmniAlphaError(f"{TRIES} pictures in a row cannot be read, the last of them of {record.id}.")

    def _having(self, role: str) -> list[Record]:
        if role == "guide":
            return [record for record in self.records if isinstance(record, Triplet)]
        if role in ("foreground", "background"):
            return [
                record
                for record in self.records
                if isinstance(record, Stack) or role in getattr(record, "pictures", ())
            ]
        return [
            record for record in self.records if hasattr(record, "composite") or role in getattr(record, "pictures", ())
        ]


def _pixels(record: Record, role: str, rng: np.random.Generator) -> np.ndarray:
    """A picture of a record as straight float32 [h, w, 4]."""
    if isinstance(record, Stack):
        path = {"background": record.layers[0], "composite": record.composite}.get(role)
        return read_rgba(path or record.layers[rng.integers(1, len(record.layers))])
    if role == "guide":
        alpha = np.ascontiguousarray(read_rgba(record.pictures["foreground"])[..., 3])
        return opaque(DRAW[list(DRAW)[rng.integers(len(DRAW))]](alpha, rng))
    return read_rgba(record.pictures[role])


def random_colours(count: int, generator: torch.Generator) -> torch.Tensor:
    """[count, 3, 1, 1] in [0, 1]."""
    return torch.rand(count, 3, 1, 1, generator=generator)


def blend_some(pictures: torch.Tensor, chance: float, generator: torch.Generator) -> torch.Tensor:
    """Each picture, by chance, put on a random solid colour: it is opaque then (paper section 3.2.1)."""
    chosen = (torch.rand(len(pictures), generator=generator) < chance).view(-1, 1, 1, 1)
    colour = random_colours(len(pictures), generator)
    alpha = pictures[:, 3:]
    flat = torch.cat([pictures[:, :3] * alpha + colour * (1 - alpha), torch.ones_like(alpha)], 1)
    return torch.where(chosen, flat, pictures)


def hide_some(pictures: torch.Tensor, chance: float, generator: torch.Generator) -> torch.Tensor:
    """Each picture, by chance, with a random colour where alpha is 0: what nobody sees must not matter."""
    chosen = (torch.rand(len(pictures), 1, 1, 1, generator=generator) < chance).float()
    colour = random_colours(len(pictures), generator) * chosen
    return torch.cat([torch.where(pictures[:, 3:] > 0, pictures[:, :3], colour), pictures[:, 3:]], 1)
