"""Draw docs/images/icon.png, the picture ComfyUI Manager shows: an alpha cut out of the uppermost of three layers.

python tools/draw_icon.py
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE, SCALE = 400, 4  # pixels of the icon; it is drawn larger and shrunk, for smooth edges
FULL = SIZE * SCALE
TARGET = Path(__file__).resolve().parent.parent / "docs/images/icon.png"

NIGHT, PAPER, SHADE = (24, 26, 38), (246, 247, 251), (206, 210, 222)
BLUE, PINK, GOLD = (86, 128, 255), (255, 92, 141), (255, 190, 92)


def alpha_curve(centre: tuple[float, float], size: float, points: int = 160) -> list[tuple[float, float]]:
    """The letter alpha as one stroke: the loop of x = t^2, y = t (t^2 - 1), its two ends running out to the right."""
    ts = [-1.26 + 2.52 * i / (points - 1) for i in range(points)]
    return [(centre[0] + size * (t * t - 0.80), centre[1] + 1.16 * size * t * (t * t - 1)) for t in ts]


def stroke(mask: Image.Image, points: list[tuple[float, float]], width: float) -> None:
    """A round brush of `width` pixels along `points`."""
    draw = ImageDraw.Draw(mask)
    for (x0, y0), (x1, y1) in pairwise(points):
        for i in range(8):
            x, y = x0 + (x1 - x0) * i / 8, y0 + (y1 - y0) * i / 8
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)


def slope(first: tuple[int, ...], last: tuple[int, ...]) -> Image.Image:
    """A gradient from the upper left corner to the lower right one."""
    ramp = Image.linear_gradient("L").resize((FULL, FULL))
    ramp = Image.blend(ramp, ramp.transpose(Image.Transpose.ROTATE_90).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.5)
    return Image.composite(Image.new("RGB", ramp.size, last), Image.new("RGB", ramp.size, first), ramp)


def checkers(cell: int) -> Image.Image:
    """The checkerboard that stands for transparency, over the whole picture."""
    board = Image.new("RGB", (FULL, FULL), PAPER)
    draw = ImageDraw.Draw(board)
    for y in range(0, FULL, cell):
        for x in range((y // cell % 2) * cell, FULL, 2 * cell):
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=SHADE)
    return board


def card(corner: tuple[float, float], side: float) -> Image.Image:
    """Mask of a rounded square."""
    mask = Image.new("L", (FULL, FULL), 0)
    box = (*corner, corner[0] + side, corner[1] + side)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=side * 0.12, fill=255)
    return mask


def draw_icon() -> Image.Image:
    """The icon, RGBA, `SIZE` pixels square."""
    icon = Image.new("RGB", (FULL, FULL), NIGHT)
    side = 0.58 * FULL
    faces = (slope(BLUE, (48, 66, 160)), slope(PINK, (150, 60, 190)), checkers(int(side / 9)))
    for i, face in enumerate(faces):
        corner = (0.12 * FULL + i * 0.09 * FULL, 0.30 * FULL - i * 0.09 * FULL)
        mask = card(corner, side)
        shadow = mask.filter(ImageFilter.GaussianBlur(0.02 * FULL)).point(lambda value: value // 2)
        icon.paste((8, 9, 16), (int(0.006 * FULL), int(0.014 * FULL)), shadow)
        icon.paste(face, (0, 0), mask)
    letter = Image.new("L", (FULL, FULL), 0)
    stroke(letter, alpha_curve((0.59 * FULL, 0.41 * FULL), 0.205 * FULL), 0.074 * FULL)
    icon.paste(slope(PINK, GOLD), (0, 0), letter)

    icon.putalpha(card((0, 0), FULL - 1))
    return icon.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    draw_icon().save(TARGET, optimize=True)
    print(TARGET)
