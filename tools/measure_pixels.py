"""Measures how true results are to the picture: close looks and the picture's own pixels, against the model's drawing.

    npm install --prefix runs --no-package-lock --ignore-scripts @lobehub/fluent-emoji-3d unicode-emoji-json
    python tools/measure_pixels.py --packages runs/node_modules --records 16 --sheets out/pixels

Pictures of 1024 pixels, each with one held-out object of 8, 15, 30 or 60 % of its side on a held-out background:
plain, with a soft shadow, with hair, or with edges like glass; any 16 in a row hold every pair of these once. Alpha,
colours and core are measured around the object (its box, wider by 30 % on each side), so that sizes can be compared.
See docs/pixels.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from omnialpha import OmniAlphaPipeline, metrics
from omnialpha.data.backgrounds import draw_background
from omnialpha.data.compose import EFFECTS, clean, composite, unpremultiply
from omnialpha.data.guides import draw_mask
from omnialpha.data.materials import Materials, load_materials
from omnialpha.errors import OmniAlphaError
from omnialpha.evaluation.classical import cut_out
from omnialpha.files.pictures import write_layer
from omnialpha.layers.compositing import checkerboard, grey_layer, opaque, over, trimap
from omnialpha.layers.looking import Look, Made, finished, look_at
from omnialpha.layers.resizing import resize
from omnialpha.layers.sequence import FittedSequence, LayerSequence
from omnialpha.layers.windows import Window
from omnialpha.model.vae import decode_layers, encode_layers
from omnialpha.tasks import TASKS

SIDE = 1024
SHARES = (0.08, 0.15, 0.3, 0.6)  # an object's side, of the picture's
KINDS = ("plain", "shadow", "hair", "glass")
BAND = 0.03  # how far a trimap's grey reaches, of the object's side
AROUND = 0.3  # of the object's side: where alpha and colours are measured
DEFAULT = (
    "matting_mask",
    "matting_trimap",
    "matting_auto",
    "removal_mask",
    "removal_auto",
    "decomposition_mask",
    "decomposition_auto",
)


@dataclass(frozen=True, eq=False)
class Scene:
    """One held-out composite with its truth: layers [4, SIDE, SIDE], and the guides [SIDE, SIDE] an artist might give.

    `near` is the window around the object where alpha and colours are measured.
    """

    number: int
    share: float
    kind: str
    picture: Tensor
    foreground: Tensor
    background: Tensor
    guides: dict[str, Tensor]
    near: Window


def draw_scene(materials: Materials, number: int, seed: int) -> Scene:
    """Scene number 0, 1, ... of a seed."""
    rng = np.random.default_rng([seed, number])
    share, kind = SHARES[number % 4], KINDS[(number + number // 4) % 4]
    side, margin = round(share * SIDE), round(share * SIDE / 4)
    image = materials.bank.picture(int(rng.integers(len(materials.bank.entries))))
    canvas = Image.new("RGBa", (side + 2 * margin,) * 2)
    canvas.paste(image.resize((side, side), Image.Resampling.LANCZOS), (margin, margin))
    pixels = unpremultiply(canvas)
    if kind in EFFECTS:
        pixels = (glassy if kind == "glass" else EFFECTS[kind])(pixels, rng, None)
    top, left = rng.integers(0, SIDE - len(pixels) + 1, 2)
    layer = np.zeros((SIDE, SIDE, 4), np.float32)
    layer[top : top + len(pixels), left : left + len(pixels)] = clean(pixels)
    scene, _ = draw_background(materials.photos, (SIDE, SIDE), rng, textures=0.25)
    background, picture = (opaque(_planes(np.round(rgb * 255) / 255)) for rgb in (scene, composite(layer, scene)))
    foreground = _planes(layer)
    guides = {
        "mask": torch.from_numpy(draw_mask(layer[..., 3], rng)),
        "trimap": trimap(foreground[3], max(2, round(BAND * side))),
    }
    rows, columns = (foreground[3].amax(dim=axis).nonzero().flatten() for axis in (1, 0))
    reach = round(AROUND * side)
    (top, bottom), (left, right) = (
        (max(0, int(line[0]) - reach), min(SIDE, int(line[-1]) + 1 + reach)) for line in (rows, columns)
    )
    near = Window(top, left, bottom - top, right - left, (SIDE, SIDE))
    return Scene(number, share, kind, picture, foreground, background, guides, near)


def glassy(layer: np.ndarray, rng: np.random.Generator, scene=None) -> np.ndarray:
    """An opaque core and a see-through rim: alpha falls to 0.4 over an eighth of the object."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(layer[..., 3] > 0.5) / (len(layer) / 12)
    layer[..., 3] *= 0.4 + 0.6 * np.clip(depth, 0, 1)
    return layer


def _planes(pixels: np.ndarray) -> Tensor:
    """[h, w, c] -> [C, H, W] float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)).permute(2, 0, 1).contiguous()


# Answers


class Answers:
    """A checkpoint's answers to one task on one scene, each computed once: layers [4, SIDE, SIDE], back to front."""

    def __init__(self, pipeline: OmniAlphaPipeline, task: str, scene: Scene, seed: int):
        self.pipeline, self.task, self.scene, self.seed = pipeline, TASKS[task], scene, seed
        guide = scene.guides.get(self.task.guide_role)
        layers = [scene.picture] + ([] if guide is None else [grey_layer(guide)])
        self.sequence = LayerSequence(layers, len(self.task.targets))
        self.looks: dict[str, Look] = {}

    def look(self, look: str) -> Look:
        """What the model makes of the picture, looked at in this way."""
        settings = self.pipeline.settings
        if look not in self.looks:
            budget = settings.pixel_budget, settings.size_multiple
            self.looks[look] = look_at(self.sequence, self.task, self._model, *budget, look)
        return self.looks[look]

    def _model(self, fitted: FittedSequence) -> Made:
        guide = fitted.inputs[1][0] if self.task.guide_role else None
        asked = {"images": fitted.inputs[:1], "guide": guide, "seed": self.seed, "size": fitted.size}
        layers = self.pipeline(self.task.id, **asked, clean=False, pixels="redraw")
        return Made(layers, lambda: self._round_trip(fitted))

    def finished(self, look: str, pixels: str) -> list[Tensor]:
        """The layers as an artist gets them."""
        return finished(self.look(look), self.sequence, self.task, pixels)

    def _round_trip(self, fitted: FittedSequence) -> Tensor:
        """The picture as the VAE gives it back."""
        vae = self.pipeline.vae
        return decode_layers(vae, encode_layers(vae, fitted.inputs[:1]))[0]

    def pymatting(self) -> list[Tensor]:
        """Closed-form matting with multi-level foreground colours, on the trimap the model gets."""
        window, scene = self.scene.near, self.scene
        _, layer = cut_out("closed_form", window.cut(scene.picture), window.cut(scene.guides["trimap"]))
        return [window.put(layer, torch.zeros_like(scene.picture))]


# name -> (its layers, tasks it can do; all of them unless told)
VARIANTS: dict[str, tuple[Callable[[Answers], list[Tensor]], tuple[str, ...]]] = {
    "redraw, whole": (lambda answers: answers.finished("whole", "redraw"), DEFAULT),
    "redraw": (lambda answers: answers.finished("close", "redraw"), DEFAULT),
    "keep, whole": (lambda answers: answers.finished("whole", "keep"), DEFAULT),
    "keep": (lambda answers: answers.finished("close", "keep"), DEFAULT),
    "pymatting": (Answers.pymatting, ("matting_trimap",)),
}


# Measures


def measure(scene: Scene, task: str, layers: list[Tensor]) -> dict[str, float]:
    """Every measure of an answer; see the table's headings in `COLUMNS`."""
    made, values = dict(zip(TASKS[task].targets, layers, strict=True)), {}
    if "foreground" in made:
        found, true = (scene.near.cut(layer) for layer in (made["foreground"], scene.foreground))
        core = true[3] >= 254.5 / 255
        values["alpha"] = 1000 * metrics.alpha_mse(found[3], true[3])
        values["alpha_all"] = 1000 * metrics.alpha_mse(made["foreground"][3], scene.foreground[3])
        values["grad"] = metrics.grad(found[3], true[3]) / 1000
        values["nine"] = metrics.nine_psnr(found, true)
        if core.any():
            values["core"] = 255 * float((found[:3] - true[:3])[:, core].square().mean().sqrt())
    if "background" in made:
        found, true = made["background"][:3], scene.background[:3]
        hole = scene.foreground[3] > 0.02
        values["picture"] = min(metrics.MOST_DB, metrics.psnr(found, true))
        values["hole"] = min(metrics.MOST_DB, metrics.psnr(found, true, hole.float()))
        values["seam"] = seam(found, scene.picture[:3], true, hole)
    if len(made) == 2:
        whole = over(made["foreground"], made["background"])
        error = (whole[:3] - scene.picture[:3]).abs().amax(dim=0)
        values["recomposed"] = 100 * float((error <= 2.5 / 255).float().mean())
    return values


def seam(found: Tensor, picture: Tensor, truth: Tensor, hole: Tensor) -> float:
    """How much steeper a picture [3, H, W] is than the truth where it passes from kept to changed, in 255ths a pixel.

    Where next to nothing is kept, along the outline of the object. 0 is perfect, less than 0 is blurred.
    """
    changed = (found - picture).abs().amax(dim=0) > 1 / 255
    region = changed if changed.float().mean() < 0.9 else hole
    line = _wider(region, 2) & _wider(~region, 2)
    return 255 * float((_slope(found) - _slope(truth))[line].mean()) if line.any() else 0.0


def _wider(region: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(region[None].float(), 2 * reach + 1, 1, reach)[0] > 0


def _slope(picture: Tensor) -> Tensor:
    """[H, W]: the length of the brightness' gradient, by central differences."""
    rows, columns = torch.gradient(picture.mean(dim=0))
    return torch.hypot(rows, columns)


# name -> heading
COLUMNS = {
    "alpha": "alpha MSE x1000",
    "alpha_all": "same, all over",
    "grad": "Grad /1000",
    "nine": "nine colours dB",
    "core": "core rms /255",
    "picture": "picture dB",
    "hole": "hole dB",
    "seam": "seam /255",
    "recomposed": "recomposed %",
}


def table(rows: list[dict], by: str | None) -> str:
    """Means over scenes, as Markdown: a row for each task, group and variant."""
    groups = sorted({(DEFAULT.index(row["task"]), row[by] if by else "all") for row in rows})
    lines = ["| task | " + (by or "") + " | variant | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|" + "---|" * (3 + len(COLUMNS)))
    for index, group in groups:
        for variant in VARIANTS:
            chosen = [
                row["values"]
                for row in rows
                if row["task"] == DEFAULT[index] and row["variant"] == variant and group in ("all", row.get(by or ""))
            ]
            cells = [[values[name] for values in chosen if name in values] for name in COLUMNS]
            if chosen:
                words = [f"{fmean(cell):.2f}" if cell else "" for cell in cells]
                lines.append(f"| {DEFAULT[index]} | {group} | {variant} | " + " | ".join(words) + " |")
    return "\n".join(lines)


# Looking


def sheet_row(scene: Scene, task: str, answers: dict[str, list[Tensor]], side: int = 256) -> Tensor:
    """[3, k * side, n * side]: around the object, picture, truth and every variant; a line of it for each target."""
    targets = {"foreground": scene.foreground, "background": scene.background}
    lines = []
    for index, role in enumerate(TASKS[task].targets):
        layers = [scene.picture, targets[role], *(layers[index] for layers in answers.values())]
        cells = [resize(opaque(checkerboard(scene.near.cut(layer), 16)), (side, side))[:3] for layer in layers]
        lines.append(torch.cat(cells, dim=2))
    return torch.cat(lines, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="micro", help="what answers (%(default)s)")
    parser.add_argument("--packages", default="node_modules", help="folder with the emoji packages (%(default)s)")
    parser.add_argument("--objects", default="fluent-emoji", help="or a folder of RGBA pictures, or `glyphs`")
    parser.add_argument("--records", type=int, default=16, help="number of scenes (%(default)s)")
    parser.add_argument("--tasks", nargs="+", default=DEFAULT, choices=DEFAULT, metavar="TASK", help=" ".join(DEFAULT))
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="VARIANT", help=", ".join(VARIANTS)
    )
    parser.add_argument("--by", choices=("share", "kind"), help="a table for each size, or each kind of edge")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--sheets", type=Path, help="folder for pictures to look at, and every number as rows.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    materials = load_materials(args.objects, "photographs", "test", args.packages, 256)
    pipeline = OmniAlphaPipeline.from_pretrained(args.checkpoint)
    rows: list[dict] = []
    pages: dict[str, list[Tensor]] = {task: [] for task in args.tasks}
    for number in tqdm(range(args.records), unit="scene", disable=None):
        scene = draw_scene(materials, number, args.seed)
        for task in args.tasks:
            answers, made = Answers(pipeline, task, scene, args.seed), {}
            for name in args.variants:
                answer, can = VARIANTS[name]
                if task not in can:
                    continue
                try:
                    made[name] = answer(answers)
                except OmniAlphaError as error:
                    print(f"{task}, scene {number}, {name}: {error}", file=sys.stderr)
                    continue
                said = {"scene": number, "share": scene.share, "kind": scene.kind, "task": task, "variant": name}
                rows.append(said | {"values": measure(scene, task, made[name])})
            if args.sheets:
                pages[task].append(sheet_row(scene, task, made))
    print(table(rows, args.by))
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        (args.sheets / "rows.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        for task, lines in pages.items():
            width = max(line.shape[2] for line in lines)
            page = torch.cat([F.pad(line, (0, width - line.shape[2]), value=1.0) for line in lines], dim=1)
            write_layer(opaque(page), args.sheets / f"{task}.png")


if __name__ == "__main__":
    main()
