"""Augmentations of a triplet's layers, as a table. Each keeps foreground, background and composite consistent.

Layers are float32 [h, w, 4] in [0, 1], straight alpha, by role; the composite stays foreground over background.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError
from .compose import composite

Layers = dict[str, np.ndarray]


def _flip(layers: Layers, rng: np.random.Generator) -> Layers:
    """Left and right exchanged, half of the time."""
    if rng.random() < 0.5:
        return layers
    return {role: layer[:, ::-1] for role, layer in layers.items()}


def _crop(layers: Layers, rng: np.random.Generator) -> Layers:
    """A window of at least three quarters of each side, the same of every layer."""
    height, width = next(iter(layers.values())).shape[:2]
    h, w = (int(side * rng.uniform(0.75, 1)) for side in (height, width))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    window = {role: layer[top : top + h, left : left + w] for role, layer in layers.items()}
    # A crop that loses the object would ask for an empty matte.
    kept = window["foreground"][..., 3].sum() if "foreground" in window else 1
    return window if kept > 0.5 * (layers["foreground"][..., 3].sum() if "foreground" in layers else 0) else layers


def _colour(layers: Layers, rng: np.random.Generator) -> Layers:
    """Brightness and colour balance of the whole scene: object and background alike, the composite made anew."""
    gain = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    changed = {role: layer.copy() for role, layer in layers.items()}
    for layer in changed.values():
        layer[..., :3] = np.clip(layer[..., :3] * gain, 0, 1)
    return _recompose(changed)


def _jpeg(layers: Layers, rng: np.random.Generator) -> Layers:
    """JPEG marks on what the model is shown, not on what it has to answer."""
    if "composite" not in layers:
        return layers
    buffer = io.BytesIO()
    picture = Image.fromarray((layers["composite"][..., :3] * 255).round().astype(np.uint8))
    picture.save(buffer, "JPEG", quality=int(rng.integers(60, 95)))
    shown = layers["composite"].copy()
    shown[..., :3] = np.asarray(Image.open(buffer), np.float32) / 255
    return {**layers, "composite": shown}


def _hidden(layers: Layers, rng: np.random.Generator) -> Layers:
    """A random colour under alpha 0 of the foreground: no answer may depend on what nobody sees."""
    if "foreground" not in layers:
        return layers
    layer = layers["foreground"].copy()
    layer[layer[..., 3] == 0, :3] = rng.uniform(0, 1, 3)
    return {**layers, "foreground": layer}


AUGMENTATIONS: dict[str, Callable[[Layers, np.random.Generator], Layers]] = {
    "flip": _flip, "crop": _crop, "colour": _colour, "jpeg": _jpeg, "hidden": _hidden,
}  # fmt: skip


def augment(layers: Layers, names: Iterable[str], rng: np.random.Generator) -> Layers:
    """Apply the named augmentations in the order given.

    Raises:
        OmniAlphaError: a name is not in `AUGMENTATIONS`.
    """
    for name in check_augmentations(names):
        layers = AUGMENTATIONS[name](layers, rng)
    return layers


def check_augmentations(names: Iterable[str]) -> tuple[str, ...]:
    """The names, or an OmniAlphaError that lists those there are."""
    names = tuple(names)
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise OmniAlphaError(f"No augmentation is called {unknown[0]!r}. There are: {', '.join(AUGMENTATIONS)}.")
    return names


def _recompose(layers: Layers) -> Layers:
    if not {"foreground", "background", "composite"} <= set(layers):
        return layers
    shown = layers["composite"].copy()
    shown[..., :3] = composite(layers["foreground"], layers["background"][..., :3])
    return {**layers, "composite": shown}
