"""Reject triplets that would teach something wrong, each with a reason, and report what was kept and why not.

Nothing is deleted: `rejected.jsonl` lists the records that readers leave out, `report.json` counts reasons, and
`report.png` shows examples of both.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError
from ..sheet import Sheet
from .compose import composite
from .examples import opaque, read_rgba, to_layer
from .parallel import write_atomically
from .records import Triplet, read_records

SOFT_TAGS = {"hair", "blur", "glass", "fade", "shadow"}  # tags that claim half-transparent pixels
PER_REASON = 4  # examples in the report


@dataclass(frozen=True)
class Limits:
    """When a triplet is rejected.

    Attributes:
        recomposition: largest mean absolute difference of foreground over background from the composite, [0, 1].
        soft_share: least share of visible pixels with alpha between .05 and .95 where a tag claims a soft edge.
        duplicate_bits: composites with the same caption whose 64-bit perceptual hashes differ in no more bits.
        visible: least share of the canvas that shows the object; with more than 1 - `visible` alpha counts as full.
    """

    recomposition: float = 2 / 255
    soft_share: float = 0.02
    duplicate_bits: int = 0
    visible: float = 0.005


@dataclass(frozen=True)
class Finding:
    """What the look at one triplet gave: why it is rejected ("" for not at all), and its perceptual hash."""

    id: str
    reason: str
    hash: int = 0


def filter_data(folder: Path | str, limits: Limits = Limits(), *, workers: int = 1) -> dict:
    """Look at every triplet of a data set; write `rejected.jsonl`, `report.json` and `report.png`. Safe to repeat.

    Returns:
        The report: {"kept", "rejected", "reasons": {reason: count}, "limits", "examples": {reason: [ids]}}.

    Raises:
        OmniAlphaError: not a data set folder, or no record in it can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OmniAlphaError(f"{folder} is no folder. The filter works on a data set folder, as `data build` makes it.")
    (folder / "rejected.jsonl").unlink(missing_ok=True)  # judged anew
    reading = read_records(folder)
    records = [record for record in reading.records if isinstance(record, Triplet)]
    jobs = [(record, limits) for record in records]
    if workers > 1 and len(jobs) > 200:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            findings = pool.starmap(examine, jobs, chunksize=50)
    else:
        findings = [examine(*job) for job in jobs]
    findings = _mark_duplicates(findings, records, limits.duplicate_bits)
    bad = [finding for finding in findings if finding.reason]
    rejected = [{"id": finding.id, "reason": finding.reason} for finding in bad]
    rejected += [{"id": problem.id, "reason": f"line {problem.line}: {problem.reason}"} for problem in reading.problems]
    reasons = Counter(_kind(item["reason"]) for item in rejected)
    examples = {reason: [item["id"] for item in rejected if _kind(item["reason"]) == reason][:20] for reason in reasons}
    report = {
        "kept": len(records) - len(bad), "rejected": len(rejected), "reasons": dict(reasons.most_common()),
        "limits": asdict(limits), "examples": examples,
    }  # fmt: skip
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in rejected)
    write_atomically(folder / "report.json", (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())
    _draw(folder / "report.png", records, findings, report)
    write_atomically(folder / "rejected.jsonl", lines.encode())
    return report


def examine(record: Triplet, limits: Limits) -> Finding:
    """One triplet's reason to be rejected, or "" and its perceptual hash."""
    try:
        layers = {role: read_rgba(path) for role, path in record.pictures.items()}
    except OmniAlphaError as error:
        return Finding(record.id, f"unreadable picture: {error}")
    reason = _fault(record, layers, limits)
    if reason:
        return Finding(record.id, reason)
    shown = layers.get("composite", layers["foreground"])
    return Finding(record.id, "", _hash(shown))


def _fault(record: Triplet, layers: dict[str, np.ndarray], limits: Limits) -> str:
    with Image.open(record.pictures["foreground"]) as image:
        if not image.has_transparency_data:
            return "no alpha channel: the foreground is a plain picture"
    sizes = {role: f"{layer.shape[1]}x{layer.shape[0]}" for role, layer in layers.items()}
    if len(set(sizes.values())) > 1:
        return "sizes differ: " + ", ".join(f"{role} {size}" for role, size in sizes.items())
    alpha = layers["foreground"][..., 3]
    visible = (alpha > 0.05).mean()
    if visible < limits.visible:
        return f"empty alpha: {visible:.2%} of the canvas shows something"
    if (alpha > 0.95).mean() > 1 - limits.visible:
        return "full alpha: the object leaves no transparent surround"
    soft = ((alpha > 0.05) & (alpha < 0.95)).mean() / visible
    claimed = sorted(SOFT_TAGS & set(record.tags))
    if claimed and soft < limits.soft_share:
        return f"no soft edge: tagged {', '.join(claimed)}, but {soft:.2%} of its pixels are half-transparent"
    if not record.captions.get("foreground", "").strip():
        return "missing caption: nobody says what the foreground shows"
    if {"background", "composite"} <= set(layers):
        again = composite(layers["foreground"], layers["background"][..., :3])
        error = float(np.abs(again - layers["composite"][..., :3]).mean())
        if error > limits.recomposition:
            return f"recomposition: foreground over background is off by {error * 255:.1f}/255 on average"
    return ""


def _kind(reason: str) -> str:
    """The reason without its particulars."""
    head = reason.split(":")[1].strip() if reason.startswith("line ") else reason.split(":")[0]
    return head


def _hash(layer: np.ndarray) -> int:
    try:
        from imagehash import phash
    except ImportError as error:
        raise OmniAlphaError("The filter needs ImageHash: pip install -r requirements-train.txt") from error
    flat = composite(layer, np.ones_like(layer[..., :3]))
    return int(str(phash(Image.fromarray((flat * 255).round().astype(np.uint8)))), 16)


def _mark_duplicates(findings: list[Finding], records: list[Triplet], bits: int) -> list[Finding]:
    """Reject all but the first of those that show the same thing under the same words."""
    first: dict[str, list[Finding]] = {}
    marked = []
    for finding, record in zip(findings, records, strict=True):
        if not finding.reason:
            words = record.captions.get("composite", record.captions.get("foreground", ""))
            same = next((old for old in first.get(words, ()) if (old.hash ^ finding.hash).bit_count() <= bits), None)
            # Portraits of one object are alike by intention; a portrait has no composite.
            if same and "composite" in record.pictures:
                finding = Finding(finding.id, f"near-duplicate: shows the same as {same.id}", finding.hash)
            else:
                first.setdefault(words, []).append(finding)
        marked.append(finding)
    return marked


def _draw(path: Path, records: list[Triplet], findings: list[Finding], report: dict) -> None:
    """The contact sheet: a row of what was kept, and a row for every reason."""
    by_id = {record.id: record for record in records}
    columns = ["foreground", "background", "composite"] * 2
    sheet = Sheet(f"{report['kept']} kept, {report['rejected']} rejected", columns)

    def cells(names: list[str]) -> list:
        return [_cell(by_id[name], role) if name in by_id else None for name in names[:2] for role in columns[:3]]

    kept = [finding.id for finding in findings if not finding.reason]
    for index in range(min(PER_REASON, len(kept) // 2 + len(kept) % 2)):
        spread = kept[index * max(1, len(kept) // PER_REASON) :]
        sheet.add("kept", [_short(by_id[name].captions.get("foreground", "")) for name in spread[:2]], cells(spread))
    for reason, names in report["examples"].items():
        sheet.add(reason, [f"{report['reasons'][reason]} of them", *names[:2]], cells(names))
    sheet.save(path)


def _cell(record: Triplet, role: str):
    try:
        return to_layer(read_rgba(record.pictures[role])) if role in record.pictures else None
    except OmniAlphaError:
        return to_layer(opaque(np.full((32, 32), 0.85, np.float32)))


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
