"""Backgrounds: a folder's pictures, crops of freely licensed photographs, and procedural textures, with captions.

The photographs come with scikit-image. Only those whose documentation (`skimage/data/_fetchers.py`) states CC0 or the
public domain are used; two of them are kept for testing, and four of other kinds for testing far from home.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError
from ..files.opening import ENDINGS, open_picture
from .captions import Captions
from .objects import pick, split_by_hash

PHOTOS = {  # name in skimage.data -> what it shows, licence as documented there
    "astronaut": ("an astronaut", "public domain (NASA)"),
    "brick": ("a brick wall", "CC0"),
    "camera": ("a photographer", "CC0"),
    "chelsea": ("a cat", "CC0"),
    "coffee": ("a cup of coffee", "CC0"),
    "grass": ("grass", "CC0"),
    "gravel": ("gravel", "CC0"),
    "hubble_deep_field": ("a starry sky", "public domain (NASA)"),
    "rocket": ("a rocket at night", "public domain (SpaceX)"),
}
HELD_OUT = ("coffee", "grass")
ODD_PHOTOS = {
    "cell": ("a cell under the microscope", "CC0"),
    "clock": ("a clock", "public domain"),
    "retina": ("a retina", "CC0"),
    "text": ("handwriting", "public domain"),
}
KEEP = 32  # pictures in memory; each is at most about 3 MB


@dataclass(frozen=True)
class Photo:
    """A background picture, decoded when first used: what it shows in words, and a file or a name in `skimage.data`."""

    caption: str
    source: Path | str
    side: int = 1024

    @property
    def image(self) -> Image.Image:
        """RGB, a file's longer side at most `side` pixels. Raises OmniAlphaError where it cannot be read."""
        return _decode(self.source, self.side)


@lru_cache(KEEP)
def _decode(source: Path | str, side: int) -> Image.Image:
    if isinstance(source, str):
        import skimage.data

        return Image.fromarray(getattr(skimage.data, source)()).convert("RGB")
    try:
        with open_picture(source) as image:
            image.draft("RGB", (side, side))
            image = image.convert("RGB")
    except Exception as error:  # PIL's readers raise about anything on damaged files
        raise OmniAlphaError(f"{source} cannot be read as a picture: {error}") from error
    image.thumbnail((side, side))  # crops of it are small; many at full size would fill the memory
    return image


def load_photos(split: str) -> list[Photo]:
    """The photographs of a split ("train" or "test"), or the "odd" ones that belong to neither."""
    if split == "odd":
        return [Photo(caption, name) for name, (caption, _) in ODD_PHOTOS.items()]
    held_out = split == "test"
    return [Photo(caption, name) for name, (caption, _) in PHOTOS.items() if (name in HELD_OUT) == held_out]


def folder_photos(folder: Path | str, split: str, size: int = 128) -> list[Photo]:
    """A folder's pictures that fall into a split by a hash of their name; all of them where there are under ten.

    Args:
        folder: the folder; subfolders count.
        split: "train" or "test".
        size: longer side of the pictures to be cut out of them.

    Raises:
        OmniAlphaError: no such folder, no picture in it, or a caption that cannot be read.
    """
    root = Path(folder)
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS) if root.is_dir() else []
    if not paths:
        raise OmniAlphaError(f"{root} is no folder with pictures in it; looked for {', '.join(ENDINGS)} files.")
    if len(paths) >= 10:
        paths = [path for path in paths if split_by_hash(path.relative_to(root).as_posix()) == split] or paths
    captions = Captions(root)
    return [Photo(captions.of(path), path, max(1024, 2 * size)) for path in paths]


def crop_photo(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random crop, flip, quarter turn and tint of a photograph, float32 [h, w, 3] in [0, 1]."""
    height, width = size
    largest = min(photo.width / width, photo.height / height)
    scale = largest * rng.uniform(min(1.0, 1 / largest), 1) if largest > 1 else largest
    crop_w, crop_h = int(width * scale), int(height * scale)
    left, top = int(rng.integers(photo.width - crop_w + 1)), int(rng.integers(photo.height - crop_h + 1))
    crop = photo.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, left + crop_w, top + crop_h))
    pixels = np.asarray(crop, np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if height == width:
        pixels = np.rot90(pixels, int(rng.integers(4)))
    if rng.random() < 0.5:
        pixels = ((pixels - 0.5) * rng.uniform(0.6, 1.2) + 0.5 + rng.uniform(-0.15, 0.15)) * rng.uniform(0.7, 1.3, 3)
    return np.clip(pixels, 0, 1).astype(np.float32)


def smooth_noise(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise of several octaves, float32 [h, w] in [0, 1]."""
    total = np.zeros(size, np.float32)
    fall = rng.uniform(0.4, 1.3)
    for cells in (2, 4, 8, 16, 32):
        if rng.random() < 0.75:
            grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
            total += np.asarray(grid.resize((size[1], size[0]), Image.Resampling.BICUBIC)) * cells**-fall
    low, high = total.min(), total.max()
    return (total - low) / (high - low + 1e-6)


def _axes(size):
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    return y / size[0], x / size[1]


def _gradient(size, rng):
    (y, x), angle = _axes(size), rng.uniform(0, 2 * np.pi)
    return np.clip((x * np.cos(angle) + y * np.sin(angle)) * 0.7 + 0.5, 0, 1)


def _halo(size, rng):
    y, x = _axes(size)
    return np.clip(np.hypot(x - rng.random(), y - rng.random()) * rng.uniform(0.8, 2), 0, 1)


def _stripes(size, rng):
    (y, x), angle = _axes(size), rng.uniform(0, 2 * np.pi)
    return 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(10, 70))


def _checks(size, rng):
    (y, x), cells = _axes(size), rng.integers(2, 9)
    return (np.floor(x * cells) + np.floor(y * cells)) % 2


def _horizon(size, rng):
    y, _ = _axes(size)
    edge = rng.uniform(0.3, 0.7) + 0.15 * (smooth_noise(size, rng) - 0.5)
    return np.clip((y - edge) * rng.uniform(5, 60) + 0.5, 0, 1)


def _plain(size, rng):
    return np.zeros(size, np.float32)


PATTERNS = {
    "gradient": _gradient,
    "halo": _halo,
    "clouds": smooth_noise,
    "mist": smooth_noise,
    "marble": smooth_noise,
    "stripes": _stripes,
    "checks": _checks,
    "horizon": _horizon,
    "plain colour": _plain,
}


def draw_texture(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A random procedural background, float32 [h, w, 3] in [0, 1], and what it shows."""
    colours = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    caption = list(PATTERNS)[rng.integers(len(PATTERNS))]
    mix = PATTERNS[caption](size, rng)[..., None]
    image = colours[0] * (1 - mix) + colours[1] * mix
    if rng.random() < 0.35:
        cloud = smooth_noise(size, rng)[..., None]
        image = image * (1 - cloud) + colours[2] * cloud
    if rng.random() < 0.3:
        y, x = _axes(size)
        for _ in range(rng.integers(1, 6)):
            disc = np.hypot(x - rng.random(), y - rng.random()) < rng.uniform(0.05, 0.3)
            image = np.where(disc[..., None], rng.uniform(0, 1, 3), image)
    grain = rng.choice([0, 0.01, 0.04])
    image = np.clip(image + rng.normal(0, grain, image.shape) if grain else image, 0, 1)
    return image.astype(np.float32), caption


def draw_background(
    photos: list[Photo],
    size: tuple[int, int],
    rng: np.random.Generator,
    textures: float = 0.4,
    problems: set[str] | None = None,
) -> tuple[np.ndarray, str]:
    """A texture, by the chance `textures` (or where there is no photograph), else a crop of a photograph.

    Returns:
        (float32 [h, w, 3] in [0, 1], what it shows in words). Photographs that cannot be read are noted in `problems`.
    """
    if not photos or rng.random() >= 1 - textures:
        return draw_texture(size, rng)
    problems = set() if problems is None else problems
    index, image = pick(rng, len(photos), lambda number: photos[number].image, problems)
    return crop_photo(image, size, rng), photos[index].caption
