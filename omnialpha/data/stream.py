"""An endless stream of examples that mixes tasks by weight; every example is a pure function of seed and index."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import OmniAlphaError
from .augment import check_augmentations
from .examples import Example, SizeRule, derive, tasks_of
from .records import Record

LOG = logging.getLogger(__name__)
TRIES = 20  # unreadable records in a row before a data set counts as broken


class ExampleStream(IterableDataset):
    """Streams examples for torch's DataLoader.

    Example i depends on (seed, i) alone: workers and processes take turns, and a run that stopped after i examples goes
    on with `start=i`. A record that cannot be read is named in the log once, counted in `broken`, and replaced by
    another for the same task.

    Args:
        records: from `records.read_records`.
        weights: task id (or "supervised", "stack") -> how often it is drawn, relative to the others.
        seed: another seed, another order.
        rule: sizes to work at, None for the pictures' own.
        augmentations: names from `augment.AUGMENTATIONS`.
        caption_rate: how often a task that can do without text gets its caption.
        start: first example.
        process, processes: which share of the examples is ours when several processes train.

    Raises:
        OmniAlphaError: no record can serve a task whose weight is above zero; the message says which.
    """

    def __init__(
        self,
        records: Sequence[Record],
        weights: Mapping[str, float],
        *,
        seed: int = 0,
        rule: SizeRule | None = None,
        augmentations: Iterable[str] = (),
        caption_rate: float = 0.5,
        start: int = 0,
        process: int = 0,
        processes: int = 1,
    ):
        self.seed, self.rule, self.caption_rate = seed, rule, caption_rate
        self.augmentations = check_augmentations(augmentations)
        self.start, self.process, self.processes = start, process, processes
        self.by_task: dict[str, list[Record]] = {task: [] for task, weight in weights.items() if weight > 0}
        for record in records:
            for task in tasks_of(record):
                if task in self.by_task:
                    self.by_task[task].append(record)
        lacking = [task for task, usable in self.by_task.items() if not usable]
        if lacking or not self.by_task:
            raise OmniAlphaError(
                f"No record can serve {', '.join(lacking) or 'any task'}: give data that can, or a weight of 0."
            )
        self.tasks = list(self.by_task)
        total = sum(weights[task] for task in self.tasks)
        self.shares = [weights[task] / total for task in self.tasks]
        self.broken: dict[str, str] = {}

    def __iter__(self) -> Iterator[Example]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        index = self.start + self.process * workers + worker
        while True:
            yield self.example(index)
            index += self.processes * workers

    def example(self, index: int) -> Example:
        """Example number `index`, the same whenever and wherever it is asked for."""
        rng = np.random.default_rng([self.seed, index])
        task = self.tasks[rng.choice(len(self.tasks), p=self.shares)]
        for _ in range(TRIES):
            record = self.by_task[task][rng.integers(len(self.by_task[task]))]
            try:
                return derive(
                    record, task, rng, self.rule, augmentations=self.augmentations, caption_rate=self.caption_rate
                )
            except OmniAlphaError as error:
                if record.id not in self.broken:
                    LOG.warning("skipped %s: %s", record.id, error)
                self.broken[record.id] = str(error)
        raise OmniAlphaError(f"{TRIES} records in a row cannot be read; the last problem: {self.broken[record.id]}")
