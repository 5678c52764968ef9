"""What every training run does around its steps: log, progress, states to go on from, and stopping in good order."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import OmniAlphaError
from ..files.opening import open_picture
from ..files.run_folder import FREE, claim
from ..files.writing import write_over, writing
from .schedule import Average
from .state import fill, find_state, gathered, optimizer_tensors, read_tensors, restore_optimizer, save_state


class TrainingRun:
    """A run in a folder: `config.json`, `log.jsonl`, TensorBoard's `events`, `sheets`, and `state`.

    The same command with the same configuration goes on where the folder's last state is; with another one it is
    refused. What a step does must depend on its number and the restored parts alone; then a run that was killed gives
    the same losses as one that was not.

    Args:
        out: the run's folder.
        config: everything that was set, ready for JSON.
        modules: name -> module whose trained parameters are saved.
        optimizers: name -> optimiser.
        average: averaged weights, saved too; None for none.
        steps: length of the run.
        save_every, log_every: in steps.
        main: is this the process that writes? Every process restores.

    Raises:
        OmniAlphaError: the folder holds a run with another configuration, or no state in it can be read.
    """

    def __init__(
        self,
        out: Path | str,
        config: dict,
        *,
        modules: dict[str, torch.nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        average: Average | None,
        steps: int,
        save_every: int = 500,
        log_every: int = 50,
        main: bool = True,
    ):
        self.out, self.config, self.main = Path(out), config, main
        self.modules, self.optimizers, self.average = modules, optimizers, average
        self.steps, self.save_every, self.log_every = steps, save_every, log_every
        self.step, self.stopping, self._board, self._bar = 0, False, None, None
        self.pending: dict[str, list[float]] = {}
        claim(self.out, config, free=FREE, main=main)
        self._restore()

    def loop(self) -> Iterator[int]:
        """Yields the number of each step to do; saves when due, when told to stop, and at the end."""
        from tqdm import tqdm

        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        self._bar = tqdm(
            total=self.steps, initial=self.step, unit="step", file=sys.stderr, disable=not self.main, mininterval=5
        )
        try:
            while self.step < self.steps and not self.stopping:
                yield self.step
                self.step += 1
                self._bar.update()
                if (self.save_every and self.step % self.save_every == 0) or self.step == self.steps:
                    self.save()
            if self.step < self.steps:
                self.save()
                raise KeyboardInterrupt
        finally:
            self._bar.close()
            if self._board:
                self._board.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def note(self, name: str, value: float) -> None:
        """Collect a value of this step for the next `log_means`; what is collected survives a stop."""
        self.pending.setdefault(name, []).append(value)

    def log_means(self, **values: float) -> None:
        """Where it is due, `log` the mean of every value noted since the last time, and `values`."""
        if self.due(self.log_every):
            means = {name: sum(noted) / len(noted) for name, noted in sorted(self.pending.items())}
            self.pending = {}
            self.log(**values, **means)

    def log(self, **values: float) -> None:
        """One line of `log.jsonl`, and TensorBoard's curves, for the present step (counted from 1 when it is done).

        Raises:
            OmniAlphaError: a value is not finite: training has diverged, and going on would spoil the saved weights.
        """
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise OmniAlphaError(
                f"Step {self.step + 1}: {bad[0]} is {values[bad[0]]}. Training has diverged; the last saved state is "
                f"as it was. Lower the learning rate, or look for broken data."
            )
        if not self.main:
            return
        log = self.out / "log.jsonl"
        with writing(log), log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step + 1, **values}) + "\n")
        for name, value in values.items():
            self._writer().add_scalar(name, value, self.step + 1)
        if self._bar and "loss" in values:
            self._bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)

    def due(self, every: int) -> bool:
        """Is something that happens `every` so many steps due at the end of this one?"""
        return bool(every) and ((self.step + 1) % every == 0 or self.step + 1 == self.steps)

    def sheet(self, name: str, sheet) -> None:
        """Save a contact sheet under `sheets`, and show it in TensorBoard."""
        folder = self.out / "sheets"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        path = folder / f"{name}-{self.step + 1:07d}.png"
        sheet.save(path)
        import numpy as np

        with open_picture(path) as image:
            self._writer().add_image(name, np.asarray(image.convert("RGB")), self.step + 1, dataformats="HWC")

    def save(self) -> None:
        """Write the state. Every process has to call it, for what is spread over them; the main one writes."""
        parts = {f"module.{name}": trained(module) for name, module in self.modules.items()}
        parts |= {f"optimizer.{name}": optimizer_tensors(item) for name, item in self.optimizers.items()}
        if self.average:
            parts["average"] = self.average.values
        tensors = {name: gathered(part, self.main) for name, part in parts.items() if part}
        note = {"average_count": self.average.count if self.average else 0, "pending": self.pending}
        if self.main:
            save_state(self.out / "state", self.step, tensors, note)

    def _restore(self) -> None:
        found = find_state(self.out / "state")
        if not found:
            return
        files, note = found
        self.step, self.pending = note["step"], note["pending"]
        places = {f"module.{name}": trained(module) for name, module in self.modules.items()}
        if self.average:
            places["average"], self.average.count = self.average.values, note["average_count"]
        for entry, tensors in places.items():
            for key, value in read_tensors(files[entry]):
                fill(tensors[key], value)
        for name, optimizer in self.optimizers.items():
            if f"optimizer.{name}" in files:  # one that has not stepped yet has no state
                restore_optimizer(optimizer, files[f"optimizer.{name}"])
        if self.main:
            _forget_after(self.out / "log.jsonl", self.step)

    def _stop(self, number, frame) -> None:
        """First signal: finish the step, save, stop. Second one: at once."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def _writer(self):
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise OmniAlphaError("Training needs TensorBoard: pip install -r requirements-train.txt") from error
            self._board = SummaryWriter(str(self.out / "events"), purge_step=self.step + 1)
        return self._board


def trained(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of a module that are being trained, by name."""
    return {name: param for name, param in module.named_parameters() if param.requires_grad}


def _forget_after(log: Path, step: int) -> None:
    """Drop the lines of steps that were done after the state was saved: they will be done, and written, again."""
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        write_over(log, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # the last line of a killed run may be half a line
        return math.inf
