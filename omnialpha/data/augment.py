"""Augmentations of a triplet's layers, as two tables: of the scene, all layers alike, and of what the model is shown.

Layers are float32 [h, w, 4] in [0, 1], straight alpha, by role.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError
from ..files.opening import open_picture
from .compose import premultiplied, unpremultiply

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
    """Brightness and colour balance of the whole scene. Only darker: where nothing clips, all layers change alike."""
    gain = np.array([*rng.uniform(0.65, 1, 3), 1], np.float32)
    return {role: layer * gain for role, layer in layers.items()}


def _jpeg(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The marks of JPEG at quality 60 to 95. A layer with alpha is no JPEG, and stays as it is."""
    if layer[..., 3].min() < 1:
        return layer
    buffer = io.BytesIO()
    picture = Image.fromarray((layer[..., :3] * 255).round().astype(np.uint8))
    picture.save(buffer, "JPEG", quality=int(rng.integers(60, 95)))
    return np.concatenate([np.asarray(open_picture(buffer), np.float32) / 255, layer[..., 3:]], -1)


def _soften(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As if enlarged from 1/1.3 to 1/2.5 of the size, half of the time; scaled premultiplied."""
    if rng.random() < 0.5:
        return layer
    factor, (height, width) = rng.uniform(1.3, 2.5), layer.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = premultiplied(layer).resize(small, Image.Resampling.BOX)
    return unpremultiply(image.resize((width, height), Image.Resampling.BICUBIC))


def _hidden(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random colour where alpha is 0: no answer may depend on what nobody sees."""
    layer = layer.copy()
    layer[layer[..., 3] == 0, :3] = rng.uniform(0, 1, 3)
    return layer


# Of all layers alike, so that the composite stays foreground over background.
SCENE: dict[str, Callable[[Layers, np.random.Generator], Layers]] = {"flip": _flip, "crop": _crop, "colour": _colour}
# Of what the model is shown, one layer at a time. What it has to answer is the undamaged truth.
SHOWN: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "jpeg": _jpeg,
    "soften": _soften,
    "hidden": _hidden,
}
AUGMENTATIONS = (*SCENE, *SHOWN)


def augment(layers: Layers, names: Iterable[str], rng: np.random.Generator, shown: Iterable[str] = ()) -> Layers:
    """Apply the named augmentations in the order given.

    Args:
        layers: layers by role; left alone.
        names: from `AUGMENTATIONS`.
        rng: where all chance comes from.
        shown: roles of the layers that are input to the task: those of `SHOWN` damage only these.

    Raises:
        OmniAlphaError: a name is not in `AUGMENTATIONS`.
    """
    shown = tuple(shown)
    for name in check_augmentations(names):
        if name in SCENE:
            layers = SCENE[name](layers, rng)
        else:
            layers = {role: SHOWN[name](layer, rng) if role in shown else layer for role, layer in layers.items()}
    return layers


def check_augmentations(names: Iterable[str], among: Iterable[str] = AUGMENTATIONS) -> tuple[str, ...]:
    """The names, or an OmniAlphaError that lists those there are."""
    names, among = tuple(names), tuple(among)
    unknown = [name for name in names if name not in among]
    if unknown:
        where = " here" if unknown[0] in AUGMENTATIONS else ""
        raise OmniAlphaError(f"No augmentation{where} is called {unknown[0]!r}. There are: {', '.join(among)}.")
    return names
