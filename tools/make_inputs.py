"""Make workflows/inputs, the small pictures that the example workflows open.

    npm install --prefix runs @lobehub/fluent-emoji-3d unicode-emoji-json
    make inputs EMOJI=runs/node_modules

All show objects and photographs that the micro checkpoint was never trained on, at the 128 pixels it works at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from omnialpha.data.backgrounds import draw_background
from omnialpha.data.compose import Composer, composite
from omnialpha.data.materials import load_materials

ROOT = Path(__file__).resolve().parent.parent
SIDE = 128
# what is drawn of it -> object, seed of its place and background
SCENES = {
    "frog": ("frog", 0),
    "gift": ("wrapped gift", 3),
    "lotus": ("lotus", 5),
    "bear": ("teddy bear", 6),
}


def brushed(alpha: np.ndarray) -> np.ndarray:
    """A rough mask [h, w]: the object painted over with a brush that is wider than need be."""
    plane = Image.fromarray(((alpha > 0.5) * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(13))
    return np.asarray(plane.filter(ImageFilter.ModeFilter(9)), np.float32) / 255


def save(pixels: np.ndarray, path: Path) -> None:
    """Write [h, w] or [h, w, 3 or 4] values in [0, 1] as PNG."""
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path, optimize=True)
    print(path.relative_to(ROOT))


def main(node_modules: Path, folder: Path) -> None:
    """Draw every picture anew."""
    materials = load_materials("fluent-emoji", "photographs", "test", str(node_modules))
    folder.mkdir(parents=True, exist_ok=True)
    for stem, (name, seed) in SCENES.items():
        rng = np.random.default_rng(seed)
        layer = Composer(materials.bank, rng, {}).foreground((SIDE, SIDE), materials.bank.names.index(name)).pixels
        if stem == "bear":
            save(layer, folder / "omnialpha_bear_cutout.png")
            continue
        scene, _ = draw_background(materials.photos, (SIDE, SIDE), rng)
        save(composite(layer, scene), folder / f"omnialpha_{stem}.png")
        if stem == "gift":
            save(brushed(layer[..., 3]), folder / "omnialpha_gift_mask.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the pictures in workflows/inputs.")
    parser.add_argument("node_modules", type=Path, help="folder with the emoji packages; see the top of this file")
    main(parser.parse_args().node_modules, ROOT / "workflows/inputs")
