"""Reject records that would teach something wrong, each with a reason, and report what was kept and why not.

Nothing is deleted: `rejected.jsonl` lists the records that readers leave out, `report.json` counts reasons, and
`report.png` shows examples of both. Pictures are measured once (`measures.jsonl`); other limits only judge anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import OmniAlphaError
from ..files.sheet import Sheet
from ..files.writing import DiskError, lines_of, write_json, write_over
from .examples import opaque, read_rgba, to_layer, words_of
from .measure import Measures, measure_all, near_duplicates
from .records import Record, StackRecord, Supervised, Triplet, read_records

SOFT_TAGS = {"hair", "blur", "glass", "fade", "shadow"}  # tags that claim half-transparent pixels
PER_REASON = 20  # ids in the report
NUMBERS = "only records whose pictures were measured are judged by numbers"
ROWS = 4  # rows of kept records on the sheet


@dataclass(frozen=True)
class FilterLimits:
    """When a record is rejected.

    Attributes:
        recomposition: largest mean absolute difference of foreground over background from the composite, [0, 1].
        soft_share: least share of visible pixels with alpha between .05 and .95 where a tag claims a soft edge.
        duplicate_bits: most bits of 128 in which the perceptual hashes of duplicates differ; -1 looks for none.
        visible: least share of the canvas that shows the object; with more than 1 - `visible` alpha counts as full.
    """

    recomposition: float = 2 / 255
    soft_share: float = 0.02
    duplicate_bits: int = 2
    visible: float = 0.005

    def __post_init__(self):
        if not -1 <= self.duplicate_bits <= 16:
            raise OmniAlphaError(f"duplicate bits: expected -1 (off) to 16, found {self.duplicate_bits}.")


def _empty(record: Record, found: Measures, limits: FilterLimits) -> str:
    assert found.visible is not None, NUMBERS
    return f"{found.visible:.2%} of the canvas shows something" if found.visible < limits.visible else ""


def _full(record: Record, found: Measures, limits: FilterLimits) -> str:
    assert found.solid is not None, NUMBERS
    return "the object leaves no transparent surround" if found.solid > 1 - limits.visible else ""


def _hard(record: Record, found: Measures, limits: FilterLimits) -> str:
    assert found.soft is not None, NUMBERS
    claimed = sorted(SOFT_TAGS & set(getattr(record, "tags", ())))
    if not claimed or found.soft >= limits.soft_share:
        return ""
    return f"tagged {', '.join(claimed)}, but {found.soft:.2%} of its pixels are half-transparent"


def _mute(record: Record, found: Measures, limits: FilterLimits) -> str:
    return "" if words_of(record).strip() else "nobody says what it shows"


def _apart(record: Record, found: Measures, limits: FilterLimits) -> str:
    if found.error is None or found.error <= limits.recomposition:
        return ""
    return f"foreground over background is off by {found.error * 255:.1f}/255 on average"


# reason -> what is wrong in particular, "" for nothing; asked about records that have the numbers of `Measures`
CHECKS: dict[str, Callable[[Record, Measures, FilterLimits], str]] = {
    "empty alpha": _empty,
    "full alpha": _full,
    "no soft edge": _hard,
    "missing caption": _mute,
    "recomposition": _apart,
}


def filter_data(
    folder: Path | str,
    limits: FilterLimits = FilterLimits(),
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Judge every record of a data set; write `rejected.jsonl`, `report.json` and `report.png`. Safe to repeat.

    Args:
        folder: the data set.
        limits: when a record is rejected.
        workers: processes.
        progress: called with how many records are measured, and of how many.

    Returns:
        The report: {"kept", "rejected", "reasons": {reason: count}, "limits", "examples": {reason: [ids]}}.

    Raises:
        OmniAlphaError: not a data set folder, no record in it can be read, or the disk is full.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OmniAlphaError(f"{folder} is no folder. The filter works on a data set folder, as `data build` makes it.")
    reading = read_records(folder, rejected=True)
    try:
        found = measure_all(folder, reading.records, workers, progress)
        bad = judge(reading.records, found, limits)
        rows = [{"id": name, "reason": reason} for name, reason in bad.items()]
        rows += [{"line": problem.line, "id": problem.id, "reason": problem.reason} for problem in reading.problems]
        report = _report(rows, len(reading.records) - len(bad), limits)
        write_json(folder / "report.json", report)
        _draw(folder / "report.png", reading.records, bad, report)
        write_over(folder / "rejected.jsonl", lines_of(rows))
    except (OSError, DiskError) as error:
        raise DiskError(
            f"Could not write to {folder}: {error} Make room and run the same command again: what was measured is not "
            f"measured again."
        ) from error
    return report


def judge(records: list[Record], found: list[Measures], limits: FilterLimits) -> dict[str, str]:
    """id -> "reason: particulars" of every record that is rejected."""
    reasons = {}
    for record, measures in zip(records, found, strict=True):
        reason = measures.fault
        if not reason and not isinstance(record, Supervised):
            said = ((name, check(record, measures, limits)) for name, check in CHECKS.items())
            reason = next((f"{name}: {words}" for name, words in said if words), "")
        if reason:
            reasons[record.id] = reason
    # Portraits of one object are alike by intention; only what has a composite is compared.
    compared = [measures for measures in found if measures.id not in reasons and measures.error is not None]
    if limits.duplicate_bits >= 0:
        for place, twin in near_duplicates(compared, limits.duplicate_bits):
            reasons[compared[place].id] = f"near-duplicate: shows the same as {compared[twin].id}"
    return {record.id: reasons[record.id] for record in records if record.id in reasons}


def _report(rows: list[dict], kept: int, limits: FilterLimits) -> dict:
    reasons = [row["reason"].split(":")[0] for row in rows]
    examples = {
        name: [str(row.get("id") or f"line {row.get('line')}") for row, reason in zip(rows, reasons) if reason == name]
        for name in reasons
    }
    return {
        "kept": kept,
        "rejected": len(rows),
        "reasons": dict(Counter(reasons).most_common()),
        "limits": asdict(limits),
        "examples": {name: ids[:PER_REASON] for name, ids in examples.items()},
    }


def _draw(path: Path, records: list[Record], bad: dict[str, str], report: dict) -> None:
    """The contact sheet: rows of what was kept, spread over the data set, and a row for every reason."""
    by_id = {record.id: record for record in records}
    kept = [record.id for record in records if record.id not in bad]
    step = max(1, len(kept) // (2 * ROWS))
    sheet = Sheet(
        f"{path.parent.name}: {report['kept']} kept, {report['rejected']} rejected",
        ["foreground", "background", "composite"] * 2,
    )
    for names in zip(kept[::step][: 2 * ROWS : 2], [*kept[::step][1 : 2 * ROWS : 2], None]):
        sheet.add("kept", [_short(words_of(by_id[name])) for name in names if name], _cells(by_id, names))
    for reason, names in report["examples"].items():
        words = [_short(bad.get(name, "").partition(": ")[2] or name) for name in names[:2]]
        sheet.add(f"{reason}: {report['reasons'][reason]}", words, _cells(by_id, names[:2]))
    sheet.save(path)


def _cells(by_id: dict[str, Record], names) -> list:
    """Three cells per record: front, back, and both."""
    cells = []
    for name in names:
        record, files = by_id.get(name), [None, None, None]
        if isinstance(record, Triplet):
            files = [record.pictures.get(role) for role in ("foreground", "background", "composite")]
        elif isinstance(record, StackRecord):
            files = [record.layers[-1], record.layers[0], record.composite]
        elif isinstance(record, Supervised):
            files = [record.outputs[0], None, record.inputs[0] if record.inputs else None]
        cells += [_cell(file) if file else None for file in files]
    return cells


def _cell(file: Path):
    """A layer to show; a grey square where it cannot be read."""
    try:
        return to_layer(read_rgba(file))
    except OmniAlphaError:
        return to_layer(opaque(np.full((32, 32), 0.85, np.float32)))


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
