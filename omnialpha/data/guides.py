"""Guides an artist might give for an object, derived from its true alpha: trimap, precise mask, rough mask.

All take and return float32 [h, w] in [0, 1]; 1 is the object.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def _plane(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values * 255).astype(np.uint8))


def _array(plane: Image.Image) -> np.ndarray:
    return np.asarray(plane, np.float32) / 255


def draw_trimap(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1 well inside, 0 well outside, .5 where neither is sure.

    The unknown band is every pixel of neither kind, widened by a random Euclidean distance of 1 px up to a sixteenth
    of the shorter side, to both sides.
    """
    from scipy.ndimage import distance_transform_edt

    def distance(mask: np.ndarray) -> np.ndarray:
        return np.asarray(distance_transform_edt(mask))

    reach = rng.uniform(1, max(2, min(alpha.shape) / 16))
    inside, outside = alpha >= 250 / 255, alpha <= 4 / 255
    # The border of the picture is no edge of the object, so nothing is padded around it.
    sure_in = distance(inside) > reach if not inside.all() else inside
    sure_out = distance(outside) > reach if not outside.all() else outside
    return np.where(sure_in, 1, np.where(sure_out, 0, 0.5)).astype(np.float32)


def draw_mask(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The object's outline, hard-edged: a careful selection."""
    return (alpha > rng.uniform(0.3, 0.6) * alpha.max()).astype(np.float32)


def _box(mask, rng):
    ys, xs = np.nonzero(mask)
    slack = [int(rng.integers(0, max(2, side // 10))) for side in (*mask.shape, *mask.shape)]
    out = np.zeros_like(mask)
    top, left = max(0, ys.min() - slack[0]), max(0, xs.min() - slack[1])
    out[top : ys.max() + 1 + slack[2], left : xs.max() + 1 + slack[3]] = 1
    return out


def _dilated(mask, rng):
    width = 2 * int(rng.integers(2, max(3, min(mask.shape) // 10) + 1)) + 1
    return _array(_plane(mask).filter(ImageFilter.MaxFilter(width)))


def _blurred(mask, rng):
    radius = rng.uniform(0.03, 0.08) * min(mask.shape)
    return _array(_plane(_dilated(mask, rng)).filter(ImageFilter.GaussianBlur(radius)))


def _polygon(mask, rng):
    """A lasso: the farthest object pixel in each of a few directions, pushed out a little."""
    ys, xs = np.nonzero(mask)
    cy, cx = ys.mean(), xs.mean()
    corners = rng.integers(7, 13)
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    points = []
    for angle in angles:
        dy, dx = np.sin(angle), np.cos(angle)
        reach = max(0.0, ((ys - cy) * dy + (xs - cx) * dx).max()) * rng.uniform(1.0, 1.25) + 1
        points.append((cx + dx * reach, cy + dy * reach))
    canvas = Image.new("L", mask.shape[::-1])
    ImageDraw.Draw(canvas).polygon(points, fill=255)
    return np.maximum(_array(canvas), 0)


def draw_coarse_mask(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A quick selection: dilated, blurred, lassoed or a box."""
    mask = draw_mask(alpha, rng)
    if not mask.any():
        return mask
    shapes = (_dilated, _blurred, _polygon, _box)
    return shapes[rng.integers(len(shapes))](mask, rng).astype(np.float32)


# role -> how its guide is drawn from a true alpha
DRAW = {"trimap": draw_trimap, "mask": draw_mask, "coarse_mask": draw_coarse_mask}
