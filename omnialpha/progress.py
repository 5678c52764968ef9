"""How far long work has come, and a way to stop it."""

from __future__ import annotations

from collections.abc import Callable

from .errors import Cancelled

# Called now and then with the share of the work that is done, in [0, 1]. Returning False, or raising, stops it.
Progress = Callable[[float], object]


class Watch:
    """Tells of a stretch of some work; nobody may be listening.

    Args:
        progress: who is told.
        first, end: the stretch, as shares of the whole.

    Raises when called:
        Cancelled: `progress` returned False.
    """

    def __init__(self, progress: Progress | None = None, first: float = 0.0, end: float = 1.0):
        self.progress, self.first, self.end = progress, first, end

    def __call__(self, done: float) -> None:
        if self.progress is not None and self.progress(self.first + (self.end - self.first) * done) is False:
            raise Cancelled(f"Stopped after {done:.0%} of the finishing.")

    def part(self, first: float, end: float) -> Watch:
        """A stretch of this one."""
        return Watch(None if self.progress is None else self, first, end)
