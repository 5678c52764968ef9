"""OpenRaster files: the layout of ours, those of other programs, and damaged or hostile ones."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from stacks import NAMES, TEXT, example

from omnialpha.errors import OmniAlphaError, OmniAlphaWarning
from omnialpha.files import ora
from omnialpha.files.formats import FORMATS, read_stack, write_stack
from omnialpha.files.stack import Stack


def ora_file(path: Path, xml: str, pictures: dict[str, bytes] | None = None, mimetype: bytes = ora.MIMETYPE) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", mimetype)
        archive.writestr("stack.xml", xml)
        for name, data in (pictures or {}).items():
            archive.writestr(name, data)
    return path


def png(pixels: torch.Tensor) -> bytes:
    file = io.BytesIO()
    ora.write_png(pixels, file)
    return file.getvalue()


def test_ora_layout(tmp_path):
    """What the specification asks of the archive: the type first and bare, the top layer first, previews."""
    (path,) = write_stack(example(400, 300), tmp_path / "s", "ora", TEXT)
    data = path.read_bytes()
    name_length, extra_length = struct.unpack("<HH", data[26:30])
    assert data[30 : 30 + name_length] == b"mimetype" and extra_length == 0
    assert data[38 : 38 + len(ora.MIMETYPE)] == ora.MIMETYPE
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        order = [layer.get("name") for layer in ElementTree.fromstring(archive.read("stack.xml")).iter("layer")]
        merged = Image.open(io.BytesIO(archive.read("mergedimage.png")))
        thumbnail = Image.open(io.BytesIO(archive.read("Thumbnails/thumbnail.png")))
    assert order == NAMES[::-1]
    assert merged.size == (300, 400) and merged.text == TEXT and thumbnail.size == (192, 256)


def test_ora_of_other_programs(tmp_path):
    """Offsets, opacities and visibility through nested groups, 16 bits, and other blend modes."""
    red = torch.tensor([1.0, 0, 0, 1])[:, None, None].expand(4, 2, 2)
    deep = io.BytesIO()
    stack_of = Stack([torch.full((4, 1, 1), 1 / 3)], ["deep"])
    FORMATS["png16"].write(stack_of.layers[0], deep)
    xml = """<?xml version='1.0'?><image w="4" h="3"><stack>
      <layer name="top" src="data/deep.png" x="3" y="-0"/>
      <stack opacity="0.5"><layer name="red" src="data/red.png" x="-1" y="2" opacity="0.5" composite-op="svg:multiply"/>
      <stack visibility="hidden"><layer name="ghost" src="data/red.png"/></stack></stack></stack></image>"""
    path = ora_file(tmp_path / "x.ora", xml, {"data/red.png": png(red), "data/deep.png": deep.getvalue()})
    with pytest.warns(OmniAlphaWarning, match="'red' has blend mode multiply"):
        found = read_stack(path)
    assert found.names == ["red", "top"]
    red_layer, top = found.layers
    assert red_layer[3].nonzero().tolist() == [[2, 0]] and red_layer[3, 2, 0] == 0.25
    assert abs(float(top[0, 0, 3]) - 1 / 3) < 1e-5
    with pytest.warns(OmniAlphaWarning):
        assert read_stack(path, hidden=True).names == ["ghost", "red", "top"]


LAYER = '<layer name="a" src="data/a.png"/>'
BAD_ORA = {
    "another kind of archive": ({"mimetype": b"application/epub+zip"}, "", "not an OpenRaster"),
    "missing picture": ({}, f'<image w="4" h="3"><stack>{LAYER}</stack></image>', "lacks 'data/a.png'"),
    "way out": ({}, '<image w="4" h="3"><stack><layer src="../../x.png"/></stack></image>', "lacks '../../x.png'"),
    "entities": ({}, '<!DOCTYPE x [<!ENTITY a "b">]><image w="4" h="3"/>', "entities"),
    "damaged xml": ({}, '<image w="4"', "damaged"),
    "no image": ({}, "<svg/>", "<svg>"),
    "no size": ({}, f"<image><stack>{LAYER}</stack></image>", "h = None"),
    "huge": ({}, f'<image w="99999" h="99999"><stack>{LAYER}</stack></image>', "too large"),
    "empty canvas": ({}, f'<image w="0" h="5"><stack>{LAYER}</stack></image>', "0x5"),
    "opacity": ({}, '<image w="4" h="3"><stack><layer opacity="nan" src="x"/></stack></image>', "'nan'"),
    "nothing in it": ({}, '<image w="4" h="3"><stack/></image>', "no visible layer"),
    "no picture": (
        {"pictures": {"data/a.png": b"x"}},
        f'<image w="4" h="3"><stack>{LAYER}</stack></image>',
        "not a picture",
    ),
    "too deep": ({}, f'<image w="4" h="3">{"<stack>" * 99}{"</stack>" * 99}</image>', "deep"),
}


@pytest.mark.parametrize("name", BAD_ORA)
def test_bad_ora_explains_itself(tmp_path, name):
    extra, xml, words = BAD_ORA[name]
    with pytest.raises(OmniAlphaError, match=words.replace("(", r"\(")):
        read_stack(ora_file(tmp_path / "x.ora", xml, **extra))


def test_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(ora, "_MAX_PNG", 10_000)
    path = tmp_path / "x.ora"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", ora.MIMETYPE)
        archive.writestr("stack.xml", f'<image w="4" h="3"><stack>{LAYER}</stack></image>')
        archive.writestr("data/a.png", bytes(10_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(OmniAlphaError, match="unpacks to 10,000,000 bytes"):
        read_stack(path)
    lying = path.read_bytes().replace(struct.pack("<I", 10_000_000), struct.pack("<I", 900))
    path.write_bytes(lying)
    with pytest.raises(OmniAlphaError):
        read_stack(path)


@pytest.mark.parametrize("ending", ["psd", "ora", "png"])
@pytest.mark.parametrize("cut", [0, 1, 30, 200, -40])
def test_damaged_files_explain_themselves(tmp_path, ending, cut):
    path = write_stack(Stack(example().layers[:1], ["a"]), tmp_path / "s", ending)[0]
    path.write_bytes(path.read_bytes()[:cut])
    try:
        read_stack(path)  # what is missing may be the merged picture alone
    except OmniAlphaError as error:
        assert path.name in str(error)
    else:
        assert (ending, cut) == ("psd", -40)
