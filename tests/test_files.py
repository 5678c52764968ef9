"""Stacks as files: what is written is read back, by this library and by readers that share no code with it."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from omnialpha.errors import OmniAlphaError, OmniAlphaWarning
from omnialpha.files import ora, packages, psd, stack
from omnialpha.files.formats import FORMATS, paths_of, read_stack, write_stack
from omnialpha.files.stack import Stack, distinct, parse_names, place
from omnialpha.layers import flatten, over_colour, read_layer, write_layer
from omnialpha.output import write_new

NAMES = ["Hintergrund ü", "前景", 'a/b: "c"']
TEXT = {"prompt": '{"1": "<&> ü"}', "workflow": "{}"}


def example(height: int = 30, width: int = 40, seed: int = 0, steps: int = 255) -> Stack:
    """Three layers on whole steps: an opaque one, one with colours under alpha 0, a soft one."""
    layers = torch.rand(3, 4, height, width, generator=torch.Generator().manual_seed(seed))
    layers[0, 3], layers[1, 3, : height // 2], layers[1, 3, height // 2 :] = 1, 0, 1
    return Stack(list((layers * steps).round() / steps), NAMES)


def same(found, wanted, tolerance: float = 1e-6) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path, format):
    """Colours, hidden ones too, alpha, order and names; 16 bits where the format has them."""
    wanted = example(steps=65535 if format == "png16" else 255)
    paths = write_stack(wanted, tmp_path / "s", format, TEXT)
    assert paths == paths_of(tmp_path / "s", NAMES, format) == [path for path in paths if path.is_file()]
    assert set(os.listdir(tmp_path)) == {path.name for path in paths}
    if FORMATS[format].layered:
        found = read_stack(paths[0])
        assert found.names == NAMES and same(found.layers, wanted.layers)
    else:
        assert same([read_layer(path) for path in paths], wanted.layers)
        assert Image.open(paths[0]).text == TEXT


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 99), st.sampled_from(["psd", "ora"]))
def test_round_trip_of_any_size(tmp_path_factory, size, seed, format):
    wanted = example(*size, seed)
    found = read_stack(write_stack(wanted, tmp_path_factory.mktemp("any") / "s", format)[0])
    assert found.size == size and same(found.layers, wanted.layers)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_overwritten(tmp_path, format):
    last = paths_of(tmp_path / "s", NAMES, format)[-1]
    last.write_text("precious")
    with pytest.raises(OmniAlphaError, match="already"):
        write_stack(example(), tmp_path / "s", format)
    assert os.listdir(tmp_path) == [last.name] and last.read_text() == "precious"


def test_a_file_that_appears_meanwhile_stays(tmp_path, monkeypatch):
    """Both ways of writing: with hard links, and where the file system has none."""
    path = tmp_path / "x"

    def write(file):
        path.write_text("precious")
        file.write(b"ours")

    for link in (os.link, _no_links):
        monkeypatch.setattr(os, "link", link)
        with pytest.raises(OmniAlphaError, match="exists"):
            write_new(path, write)
        assert path.read_text() == "precious" and os.listdir(tmp_path) == ["x"]
        path.unlink()
    write_new(path, lambda file: file.write(b"ours"))
    assert path.read_bytes() == b"ours"


def _no_links(*paths):
    raise PermissionError("no hard links here")


def test_half_a_file_is_never_seen(tmp_path):
    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_new(tmp_path / "x", write)
    assert not os.listdir(tmp_path)


def test_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    for module, package, format in (("psd_tools", "psd-tools", "psd"), ("png", "pypng", "png16")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(OmniAlphaError, match=f"-m pip install {package}"):
            write_stack(example(), tmp_path / "s", format)
    assert not os.listdir(tmp_path)
    assert set(packages.PACKAGES) == {"psd_tools", "png"}


# --- names, places, folders


def test_names():
    assert parse_names(" sky \n\n tree\n", 2) == ["sky", "tree"]
    assert parse_names("", 2) == ["layer0", "layer1"]
    assert distinct(["a", "A", "", "a"]) == ["a", "A 2", "layer", "a 3"]
    for text, count, words in (("a", 2, "1 names for 2"), ("a\nA", 2, "share"), ("x" * 300, 1, "300 characters")):
        with pytest.raises(OmniAlphaError, match=words):
            parse_names(text, count)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "..", "a\0b", "C:\\x", ". ", "con|<>"])
def test_names_stay_in_their_folder(tmp_path, name):
    (path,) = paths_of(tmp_path / "s", [name], "png")
    assert path.parent == tmp_path and path.name.startswith("s_") and "\0" not in path.name


def test_place_cuts_off_what_sticks_out():
    layer = torch.ones(4, 3, 3)
    assert place(layer, -2, 1, (4, 5))[3].nonzero().tolist() == [[1, 0], [2, 0], [3, 0]]
    assert place(layer, 9, 9, (4, 5)).sum() == 0


def test_folder_is_sorted_and_filtered(tmp_path):
    for name in ("layer10.png", "layer2.png", "layer1.webp", "mask_1.png"):
        write_layer(torch.rand(4, 5, 6), tmp_path / name.replace("webp", "png"))
    (tmp_path / "layer1.png").rename(tmp_path / "layer01.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert read_stack(tmp_path, pattern="layer*").names == ["layer01", "layer2", "layer10"]
    with pytest.raises(OmniAlphaError, match="no pictures that match 'x"):
        read_stack(tmp_path, pattern="x*")
    write_layer(torch.rand(4, 5, 7), tmp_path / "layer3.png")
    with pytest.raises(OmniAlphaError, match=r"layer01\.png is 6x5 and layer3\.png 7x5"):
        read_stack(tmp_path)


# --- OpenRaster from elsewhere


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


# --- PSD


def test_psd_is_what_photoshop_writes(tmp_path):
    """Paintable pixels: a transparency channel, no mask, blend mode normal; the preview over white, with alpha."""
    import psd_tools

    wanted = example()
    (path,) = write_stack(wanted, tmp_path / "s", "psd", TEXT)
    document = psd_tools.PSDImage.open(path)
    assert document.size == (40, 30) and document.depth == 8 and document.has_preview()
    for layer in document:
        assert layer.kind == "pixel" and not layer.has_mask() and layer.visible and layer.opacity == 255
        assert layer.blend_mode.name == "NORMAL" and layer.bbox == (0, 0, 40, 30)
        assert [channel.id for channel in layer._record.channel_info] == [-1, 0, 1, 2]
    flat = flatten(wanted.layers)
    merged = torch.from_numpy(document.numpy()).movedim(2, 0)
    assert torch.allclose(merged[3:], flat[3:], atol=2 / 255)
    assert torch.allclose(over_colour(merged), over_colour(flat), atol=3 / 255)
    xmp = document.image_resources.get_data("XMP_METADATA") or document.image_resources.get_data(1060)
    assert b'<omnialpha:prompt>{"1": "&lt;&amp;&gt; ' in xmp


def test_psd_of_other_programs(tmp_path):
    """Groups, offsets, opacities, hidden layers, masks and blend modes, as psd-tools draws them."""
    psd_tools = pytest.importorskip("psd_tools")
    document = psd_tools.PSDImage.new("RGB", (6, 5))
    square = Image.new("RGB", (2, 2), (255, 0, 0))
    low = document.create_pixel_layer(square, "low", top=4, left=-1, opacity=128)
    hidden = document.create_pixel_layer(square, "ghost")
    hidden.visible = False
    masked = document.create_pixel_layer(Image.new("RGBA", (2, 2), (0, 255, 0, 0)), "masked")
    group = document.create_group([low], "group")
    group.opacity = 128
    top = document.create_pixel_layer(square, "top", top=1, left=1)
    top.blend_mode = psd_tools.constants.BlendMode.MULTIPLY
    document.save(tmp_path / "x.psd")
    assert masked.has_mask()
    with pytest.warns(OmniAlphaWarning, match="'top' has blend mode multiply"):
        found = read_stack(tmp_path / "x.psd")
    layers = dict(zip(found.names, found.layers, strict=True))
    assert set(layers) == {"low", "masked", "top"} and found.size == (5, 6)
    assert layers["low"][3].nonzero().tolist() == [[4, 0]]
    assert abs(float(layers["low"][3, 4, 0]) - (128 / 255) ** 2) < 1e-4
    assert layers["masked"][3].sum() == 0 and layers["top"][:, 1, 1].tolist() == [1, 0, 0, 1]
    with pytest.warns(OmniAlphaWarning):
        assert "ghost" in read_stack(tmp_path / "x.psd", hidden=True).names


def test_psd_without_layers_is_one_layer(tmp_path):
    psd_tools = pytest.importorskip("psd_tools")
    psd_tools.PSDImage.frompil(Image.new("RGB", (4, 3), (10, 20, 30))).save(tmp_path / "x.psd")
    found = read_stack(tmp_path / "x.psd")
    assert found.names == ["Background"] and (found.layers[0][:, 0, 0] * 255).round().tolist() == [10, 20, 30, 255]


def test_psd_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(psd, "MAX_SIDE", 20)
    with pytest.raises(OmniAlphaError, match="40x30"):
        write_stack(example(), tmp_path / "s", "psd")
    monkeypatch.setattr(psd, "MAX_SIDE", 30000)
    (path,) = write_stack(example(), tmp_path / "s", "psd")
    monkeypatch.setattr(stack, "MAX_STACK_PIXELS", 3 * 40 * 30 - 1)
    with pytest.raises(OmniAlphaError, match="3 layers of 40x30"):
        read_stack(path)


def test_psd_in_another_colour_mode(tmp_path):
    psd_tools = pytest.importorskip("psd_tools")
    psd_tools.PSDImage.frompil(Image.new("CMYK", (4, 3))).save(tmp_path / "x.psd")
    with pytest.raises(OmniAlphaError, match="CMYK"):
        read_stack(tmp_path / "x.psd")


# --- readers that share no code with ours


def imagemagick() -> str | None:
    """ImageMagick's converter, under whichever of its names."""
    for name in ("magick", "convert-im6.q16", "convert-im6.q16hdri", "convert"):
        if shutil.which(name):
            said = subprocess.run([name, "-version"], capture_output=True, text=True)
            if "Version: ImageMagick" in said.stdout:
                return name
    return None


def test_imagemagick_reads_our_psd(tmp_path):
    """Layer by layer, to the byte; [0] is the merged picture."""
    converter = imagemagick()
    if converter is None:
        pytest.skip("OUR PSD IS NOT CHECKED BY A SECOND READER: apt install imagemagick")
    wanted = example(37, 53)
    (path,) = write_stack(wanted, tmp_path / "s", "psd")
    found = []
    for index in range(4):
        subprocess.run([converter, f"{path}[{index}]", f"PNG32:{tmp_path / 'x.png'}"], check=True, capture_output=True)
        found.append(read_layer(tmp_path / "x.png"))
    assert same(found[1:], wanted.layers)
    flat = flatten(wanted.layers)
    assert torch.allclose(over_colour(found[0]), over_colour(flat), atol=2 / 255)


@pytest.fixture(scope="module")
def krita(tmp_path_factory):
    """Runs Krita, on a screen that nobody sees: it insists on one."""
    if not (shutil.which("krita") and shutil.which("Xvfb")):
        pytest.skip("OUR LAYERED FILES ARE NOT CHECKED BY KRITA: apt install krita xvfb")
    readable, writable = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writable)], pass_fds=[writable], stderr=subprocess.DEVNULL)
    os.close(writable)
    with os.fdopen(readable) as numbers:
        number = numbers.readline().strip()  # written once it takes connections
    home = str(tmp_path_factory.mktemp("krita"))  # its first start fills a home, which takes a while
    environment = {**os.environ, "DISPLAY": f":{number}", "HOME": home, "XDG_RUNTIME_DIR": home}

    def run(*arguments) -> None:
        command = ["krita", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr

    yield run
    server.terminate()
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["psd", "ora"])
def test_krita_reads_our_layers(tmp_path, krita, format):
    """Krita puts its own picture together from the layers; another order or a lost alpha would show."""
    wanted = example(37, 53)
    (path,) = write_stack(wanted, tmp_path / "s", format)
    if format == "ora":  # the merged picture must not be what is looked at
        _without(path, "mergedimage.png")
    krita("--export", "--export-filename", tmp_path / "x.png", path)
    found = read_layer(tmp_path / "x.png")
    flat = flatten(wanted.layers)
    assert torch.allclose(found[3], flat[3], atol=2 / 255)
    assert torch.allclose(over_colour(found), over_colour(flat), atol=2 / 255)


def _without(path: Path, member: str) -> None:
    """Takes one file out of an archive."""
    with zipfile.ZipFile(path) as archive:
        kept = [(info, archive.read(info)) for info in archive.infolist() if info.filename != member]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in kept:
            archive.writestr(info, data)
