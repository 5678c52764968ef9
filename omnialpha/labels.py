"""What layers are called where people look at them."""

from __future__ import annotations

import re


def label_layers(names: str, count: int) -> list[str]:
    """A label for each of `count` layers, back to front.

    Args:
        names: one per line; or, on a single line, with commas between them. Those left empty or missing get a label of
            ours, those too many are not used: how many layers come is often not known when the names are written.
        count: of layers.
    """
    parts = re.split(r"\r?\n" if "\n" in names.strip() else ",", names.strip())
    given = [part.strip() for part in parts[:count]]
    return [name or _default(index, count) for index, name in enumerate(given + [""] * (count - len(given)))]


def _default(index: int, count: int) -> str:
    return "background" if index == 0 and count > 1 else f"layer {max(index, 1)}"
