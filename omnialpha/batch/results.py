"""Results on this disk: downloaded beside their place, looked at, then moved there without overwriting anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..files.opening import open_picture
from ..files.writing import copy_over, give_name, writing
from . import addresses
from .addresses import is_address
from .jobs import Job, sha256
from .journal import Journal, Result
from .naming import OWN, numbered, result_path
from .workflow import PICTURES


class Damaged(Exception):
    """A downloaded file does not open."""


class Folder:
    """The output folder of a batch.

    Args:
        root: where results go, on this machine or at an address.
        template: how results are named, see `naming.result_path`.
        own: folder on this machine for the journal, unfinished downloads and reports; `root/_batch` where left out.
    """

    def __init__(self, root: Path, template: str, own: Path | None = None):
        self.root, self.template, self.own = root, template, own or root / OWN
        self.parts = self.own / "parts"

    def part(self, job: str, number: int) -> Path:
        """Where a result is kept until it has its name; the folder is made."""
        with writing(self.parts):
            self.parts.mkdir(parents=True, exist_ok=True)
        return self.parts / f"{job[:32]}-{number:03}"

    def wanted(self, job: Job, number: int, node_title: str, filename: str) -> str:
        """The name that the template gives."""
        name = PurePosixPath(filename.replace("\\", "/"))
        fields = {**job.fields(), "index": number, "node": node_title, "name": name.stem}
        return result_path(self.template, fields, name.suffix)

    def claim(self, results: Iterable[Result], journal: Journal) -> list[Result]:
        """The results under names that are free: in the journal, among these, and on the disk.

        A name is free as well where the disk has this very content: then there is nothing left to do.
        """
        chosen: list[Result] = []
        for result in results:
            number, path = 1, result.path
            while (
                path.casefold() in (other.path.casefold() for other in chosen)
                or journal.taken(path)
                or (self._there(path) and not self.holds(path, result.sha256))
            ):
                number += 1
                path = numbered(result.path, number)
            chosen.append(replace(result, path=path))
        return chosen

    def publish(self, job: str, journal: Journal) -> bool:
        """Give a fetched job's parts their names. Done twice, or stopped anywhere and done again, it gives the same.

        Returns:
            False where a part is gone that was not published yet; the job then has to run again.
        """
        for result in journal.results(job):
            if not self._publish(job, result, journal):
                return False
        journal.done(job)
        self.drop_parts(job)
        return True

    def _publish(self, job: str, result: Result, journal: Journal) -> bool:
        part, path = self.part(job, result.number), result.path
        while not self.holds(path, result.sha256):
            if not part.exists():
                return False
            with writing(self.root / path):
                if put(part, self.root / path):
                    continue
            with journal.lock:  # somebody put another file there meanwhile
                path = self.claim([result], journal)[0].path
                journal.move(job, result.number, path)
        return True

    def holds(self, path: str, digest: str) -> bool:
        """Whether the file is there, with this content."""
        whole = self.root / path
        return whole.is_file() and sha256(whole) == digest

    def missing(self, results: Iterable[Result]) -> bool:
        """Whether some of these files are gone."""
        return any(not self._there(result.path) for result in results)

    def drop_parts(self, job: str) -> None:
        """Remove what is left of a job's downloads."""
        for part in self.parts.glob(f"{job[:32]}-*"):
            part.unlink(missing_ok=True)

    def sweep(self, fetched: Iterable[str]) -> None:
        """Remove downloads that an earlier run left, all but those of fetched jobs."""
        kept = {job[:32] for job in fetched}
        for part in self.parts.glob("*"):
            if part.name.rsplit("-", 1)[0] not in kept:
                part.unlink(missing_ok=True)

    def _there(self, path: str) -> bool:
        whole = self.root / path
        return whole.exists() if is_address(whole) else os.path.lexists(whole)


def put(part: Path, final: Path) -> bool:
    """Give a complete file its name, at once and without overwriting. False where the name is taken. Raises OSError."""
    if is_address(final):
        return addresses.put(part.read_bytes(), final)
    final.parent.mkdir(parents=True, exist_ok=True)
    # The part itself stays until the journal says done. On a disk without hard links an empty file claims the name, and
    # a run stopped right then finds it empty and goes on.
    if give_name(part, final, keep=True):
        return True
    if not _is_empty(final):
        return False
    copy_over(part, final)
    return True


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == 0


def check(part: Path, name: str) -> None:
    """Looks whether a downloaded file is what its name says, as far as that can be told.

    Raises:
        Damaged: it is empty, or a picture or JSON that does not open.
    """
    if not part.stat().st_size:
        raise Damaged(f"{name} is empty.")
    ending = PurePosixPath(name).suffix.lower()
    try:
        if ending in PICTURES:
            from PIL import Image

            try:
                with open_picture(part) as image:
                    image.load()
            except Image.DecompressionBombError:
                return  # it opened, and is larger than PIL likes to decode
        elif ending == ".json":
            json.loads(part.read_text(encoding="utf-8"))
    except Exception as error:  # PIL's readers raise about anything on damaged files
        raise Damaged(f"{name} does not open ({error}).") from error
