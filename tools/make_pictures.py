"""Remake the pictures of the README from what the built-in checkpoint really gives.

    make pictures

- docs/images/demo.png: the contact sheet of `python -m omnialpha demo`, and its table in docs/demo.md;
- docs/images/families.png: what goes in and what comes out, one column per example workflow;
- docs/images/workflow_*.png: the example workflows after a run, in the real frontend;
- workflows/*.jpg: the thumbnails that ComfyUI shows beside them under Browse Templates.

All but the first need ComfyUI, the screenshots a browser too (see comfy_server.py, frontend.py); what cannot be
made stays as it is.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import comfy_server
import frontend
from PIL import Image, ImageDraw, ImageFont
from public_workflows import PUBLIC

ROOT = comfy_server.ROOT
IMAGES = ROOT / "docs/images"
WORKFLOWS = ROOT / "workflows"
CELL, GAP, CAPTION = 192, 12, 30
# workflow -> family, and what its column shows: "given" pictures, "words", saved layers by number, all layers "flat"
FAMILIES = {
    "matting": ("matting", ("given", 0, "on colour")),
    "removal": ("removal", ("given", 0)),
    "quick_start": ("decomposition", ("given", 0, 1)),
    "completion": ("completion", ("given", 0, "flat")),
    "generation": ("generation", ("words", 0, "on colour")),
}
# more workflows that run on micro: what the right half of their thumbnail shows
MORE_THUMBNAILS = {"decomposition_step_by_step": 1, "two_stage": "flat", "fine_edges": 0}


def checkers(size: tuple[int, int]) -> Image.Image:
    """The checkerboard that stands for transparency."""
    board = Image.new("RGBA", size, (250, 250, 252, 255))
    draw = ImageDraw.Draw(board)
    for y in range(0, size[1], 12):
        for x in range(y // 12 % 2 * 12, size[0], 24):
            draw.rectangle((x, y, x + 11, y + 11), fill=(214, 217, 226, 255))
    return board


def tile(picture: Image.Image) -> Image.Image:
    """A layer as a square tile: over the checkerboard."""
    picture = picture.convert("RGBA").resize((CELL, CELL), Image.Resampling.BICUBIC)
    return Image.alpha_composite(checkers((CELL, CELL)), picture).convert("RGB")


def stacked(columns: dict[str, list[Image.Image]]) -> Image.Image:
    """Columns of tiles, each under its name; the first tile of each is what went in."""
    rows = max(map(len, columns.values()))
    sheet = Image.new("RGB", (len(columns) * (CELL + GAP) + GAP, CAPTION + rows * (CELL + GAP) + GAP), (24, 26, 38))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for i, (name, pictures) in enumerate(columns.items()):
        x = GAP + i * (CELL + GAP)
        draw.text((x + CELL / 2, GAP / 2 + CAPTION / 2), name, fill=(236, 238, 246), font=font, anchor="mm")
        for k, picture in enumerate(pictures):
            sheet.paste(tile(picture), (x, CAPTION + GAP + k * (CELL + GAP)))
    return sheet


def before_and_after(before: Image.Image, after: Image.Image) -> Image.Image:
    """One square: the left half shows what went in, the right half what came out."""
    square = tile(after)
    square.paste(tile(before).crop((0, 0, CELL // 2, CELL)))
    ImageDraw.Draw(square).line((CELL // 2, 0, CELL // 2, CELL), fill=(255, 255, 255), width=2)
    return square


def given(graph: dict) -> list[Image.Image]:
    """The pictures an API graph loads."""
    names = [node["inputs"]["image"] for node in graph.values() if node["class_type"].startswith("LoadImage")]
    return [Image.open(WORKFLOWS / "inputs" / name) for name in names]


def words(graph: dict) -> Image.Image:
    """The text an API graph is given, as a tile."""
    text = next(node["inputs"]["text"] for node in graph.values() if node["class_type"] == "OmniAlphaTask")
    page = Image.new("RGBA", (CELL, CELL), (58, 62, 82, 255))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(22)
    draw.text((CELL / 2, CELL / 2), f"\u201c{text}\u201d", fill=(236, 238, 246), font=font, anchor="mm")
    return page


def flat(layers: list[Image.Image], colour: tuple[int, ...] = (0, 0, 0, 0)) -> Image.Image:
    """Layers over each other and over a colour, the first at the back."""
    picture = Image.new("RGBA", layers[0].size, colour)
    for layer in layers:
        picture.alpha_composite(layer.convert("RGBA"))
    return picture


def results(server: comfy_server.ComfyServer, graph: dict) -> list[Image.Image]:
    """The layers that a run of an API graph saves, back to front."""
    outputs = server.run(graph)["outputs"]
    savers = [key for key, node in graph.items() if node["class_type"] == "OmniAlphaSaveLayers"]
    files = [image for key in savers for image in outputs[key]["images"]]
    return [Image.open(server.base / "output" / file["subfolder"] / file["filename"]).copy() for file in files]


def make_sheet() -> None:
    """The demo's contact sheet, and the table it prints."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [sys.executable, "-m", "omnialpha", "demo", "--out", str(out)]
        printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        shutil.copy(out / "sheet.png", IMAGES / "demo.png")
    print(printed)
    table = "\n".join(line.rstrip() for line in printed.partition("\n\n")[0].splitlines())
    page = ROOT / "docs/demo.md"
    text, count = re.subn(
        r"(<!-- demo -->\n```\n).*?(\n```)",
        lambda match: match[1] + table + match[2],
        page.read_text(encoding="utf-8"),
        flags=re.S,
    )
    if count != 1:
        raise RuntimeError("docs/demo.md has lost the place for the demo's table: <!-- demo --> and a code block")
    page.write_text(text, encoding="utf-8")


def card(title: str, remark: str) -> Image.Image:
    """A thumbnail for what cannot be run here: the pack's icon and two lines of words."""
    side = 2 * CELL
    sheet = Image.new("RGB", (side, side), (24, 26, 38))
    icon = Image.open(IMAGES / "icon.png").convert("RGBA").resize((CELL, CELL), Image.Resampling.LANCZOS)
    sheet.paste(icon, (CELL // 2, CELL // 4), icon)
    draw = ImageDraw.Draw(sheet)
    draw.text((CELL, 1.5 * CELL), title, fill=(236, 238, 246), font=ImageFont.load_default(38), anchor="mm")
    fonts = map(ImageFont.load_default, range(24, 8, -1))
    font = next(font for font in fonts if draw.textlength(remark, font) < side - GAP)
    draw.text((CELL, 1.75 * CELL), remark, fill=(160, 166, 190), font=font, anchor="mm")
    return sheet


def make_cards() -> None:
    """The thumbnails of the workflows for the public checkpoint."""
    for row in PUBLIC:
        title, _, remark = row.name.partition("_")
        remark = remark.replace("_", " ") or "fp8"
        sheet = card(title.capitalize(), f"public checkpoint, {remark}")
        sheet.save(WORKFLOWS / f"omnialpha_public_{row.name}.jpg", quality=85)


def make_families(server: comfy_server.ComfyServer) -> None:
    """families.png and the thumbnails."""
    columns = {}
    for stem, (name, shown) in FAMILIES.items():
        graph = json.loads((WORKFLOWS / f"api/omnialpha_{stem}.json").read_text(encoding="utf-8"))
        layers = results(server, graph)
        pictures = []
        for what in shown:
            match what:
                case "given":
                    pictures += given(graph)
                case "words":
                    pictures.append(words(graph))
                case "flat":
                    pictures.append(flat(layers))
                case "on colour":
                    pictures.append(flat(layers, (255, 179, 71, 255)))
                case number:
                    pictures.append(layers[number])
        columns[name] = pictures
        thumbnail = tile(flat(layers)) if shown[0] == "words" else before_and_after(pictures[0], pictures[-1])
        thumbnail.save(WORKFLOWS / f"omnialpha_{stem}.jpg", quality=88)
    for stem, what in MORE_THUMBNAILS.items():
        graph = json.loads((WORKFLOWS / f"api/omnialpha_{stem}.json").read_text(encoding="utf-8"))
        layers = results(server, graph)
        after = flat(layers) if what == "flat" else layers[what]
        before_and_after(given(graph)[0], after).save(WORKFLOWS / f"omnialpha_{stem}.jpg", quality=88)
    stacked(columns).save(IMAGES / "families.png", optimize=True)


def make_screenshots(server: comfy_server.ComfyServer) -> None:
    """workflow_*.png."""
    jobs = [
        {
            "workflow": WORKFLOWS / f"omnialpha_{stem}.json",
            "screenshot": IMAGES / f"workflow_{stem}.png",
            "run": True,
        }
        for stem in ("matting", "fine_edges", "decomposition_step_by_step")
    ]
    for job, result in zip(jobs, frontend.drive(server.url, *jobs), strict=True):
        print(job["screenshot"].name, *result["problems"] or ["is fine"])


def main() -> int:
    """Make what can be made here; return the exit status."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    make_cards()
    make_sheet()
    why_not = comfy_server.missing_comfyui()
    if why_not:
        print(f"No families.png, no screenshots: {why_not}.")
        return 1
    with comfy_server.ComfyServer() as server:
        make_families(server)
        why_not = frontend.missing_browser()
        if why_not:
            print(f"No screenshots: {why_not}.")
            return 1
        make_screenshots(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
