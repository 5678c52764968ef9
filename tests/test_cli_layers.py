"""The commands `layers` and `refine`, and `run --format`."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from stacks import NAMES, example, same

from omnialpha.cli.main import build_parser, main
from omnialpha.files.formats import read_stack, write_stack
from omnialpha.files.pictures import read_layer, write_layer
from omnialpha.files.results import write_layers
from omnialpha.layers.compositing import flatten, grey_layer
from omnialpha.layers.refining import refine


def test_there_and_back(tmp_path, capsys):
    """PSD to OpenRaster, to PNGs, to PSD: the same layers, and every file is printed."""
    wanted = example()
    (psd,) = write_stack(wanted, tmp_path / "a", "psd")
    assert main(["layers", str(psd), "--out", str(tmp_path / "b.ora")]) == 0
    (tmp_path / "pngs").mkdir()
    names = "1,2,3"
    out = str(tmp_path / "pngs/c.png")
    assert main(["layers", str(tmp_path / "b.ora"), "--out", out, "--bits", "16", "--names", names]) == 0
    assert main(["layers", str(tmp_path / "pngs"), "--out", str(tmp_path / "d.psd")]) == 0
    found = read_stack(tmp_path / "d.psd")
    assert found.names == ["c_1", "c_2", "c_3"] and same(found.layers, wanted.layers)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        str(tmp_path / name) for name in ("b.ora", "pngs/c_1.png", "pngs/c_2.png", "pngs/c_3.png", "d.psd")
    ]
    assert Image.open(tmp_path / "pngs/c_1.png").tile[0].args == "RGBA;16B"


def test_order_and_several_sources(tmp_path):
    wanted = example()
    (psd,) = write_stack(wanted, tmp_path / "a", "psd")
    write_layer(wanted.layers[0], tmp_path / "b.png")
    assert main(["layers", str(psd), str(tmp_path / "b.png"), "--out", str(tmp_path / "c.ora"), "--order=-1,0+1"]) == 0
    found = read_stack(tmp_path / "c.ora")
    assert found.names == ["b", f"{NAMES[0]} + {NAMES[1]}"]
    assert same(found.layers, [wanted.layers[0], flatten(wanted.layers[:2])], 0.51 / 255)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["layers", "a.psd", "--out", "a.psd"], "already"),
        (["layers", "a.psd", "--out", "b.gif"], "does not end in .psd or .ora or .png"),
        (["layers", "a.psd", "--out", "gone/b.psd"], "no folder"),
        (["layers", "gone.psd", "--out", "b.psd"], "no file or folder at gone.psd"),
        (["layers", "a.psd", "--out", "b.psd", "--order", "7"], "no layer 7"),
        (["layers", "a.psd", "--out", "b.psd", "--names", "x"], "1 names for 3"),
        (["refine", "photo.png", "photo.png", "--out", "b.psd"], "does not end in .png"),
        (["refine", "photo.png", "photo.png", "--out", "photo.png"], "exists"),
        (["refine", "photo.png", "photo.png", "--out", "b.png", "--worked-at", "999"], "999x749"),
        (["refine", "photo.png", "photo.png", "--out", "b.png", "--trimap", "small.png"], "the trimap 5x4"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_stack(example(), "a", "psd")
    write_layer(example().layers[0], "photo.png")
    write_layer(torch.ones(4, 4, 5), "small.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_refine(tmp_path):
    generator = torch.Generator().manual_seed(0)
    picture, matte = torch.rand(4, 24, 32, generator=generator), torch.rand(4, 12, 16, generator=generator)
    picture[3] = 1
    write_layer(picture, tmp_path / "photo.png")
    write_layer(matte, tmp_path / "matte.png")
    out = tmp_path / "out.png"
    assert main(["refine", *map(str, (tmp_path / "photo.png", tmp_path / "matte.png")), "--out", str(out)]) == 0
    wanted = refine(read_layer(tmp_path / "photo.png")[:3], read_layer(tmp_path / "matte.png"))
    assert same([read_layer(out)], [wanted], 0.51 / 255)
    known = (picture[1] * 3).floor().clamp(max=2) / 2
    write_layer(grey_layer(known), tmp_path / "trimap.png")
    out = tmp_path / "held.png"
    words = [*map(str, (tmp_path / "photo.png", tmp_path / "matte.png")), "--trimap", str(tmp_path / "trimap.png")]
    assert main(["refine", *words, "--out", str(out)]) == 0
    held = read_layer(out)[3]
    assert torch.equal(held[known != 0.5], known[known != 0.5])


@pytest.mark.parametrize("format", ["png", "png16", "psd", "ora"])
def test_run_writes_every_format(tmp_path, format):
    """What `run --format` does with its layers; the settings go along."""
    assert build_parser().parse_args(["run", "matting_auto", "--format", format]).format == format
    wanted = example()
    paths = write_layers(wanted.layers, ["background", "foreground", "foreground"], tmp_path, {"seed": 7}, format)
    if format.startswith("png"):
        assert [path.name for path in paths] == ["01-background.png", "02-foreground.png", "03-foreground.png"]
        text = json.loads(Image.open(paths[1]).text["omnialpha"])
        assert text == {"seed": 7, "layer": "foreground", "index": 1, "layers": 3}
        assert same([read_layer(path) for path in paths], wanted.layers)
    else:
        assert [path.name for path in paths] == [f"layers.{format}"]
        found = read_stack(paths[0])
        assert found.names == ["background", "foreground", "foreground 2"] and same(found.layers, wanted.layers)
        assert b'{"seed": 7}' in paths[0].read_bytes()
