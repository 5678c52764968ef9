"""Stacks as files: what is written is read back; nothing is overwritten; names, folders and PSD."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stacks import NAMES, TEXT, example, same

from omnialpha.errors import OmniAlphaError, OmniAlphaWarning
from omnialpha.files import packages, psd, stack
from omnialpha.files.formats import FORMATS, paths_of, read_stack, write_stack
from omnialpha.files.pictures import read_layer, write_layer
from omnialpha.files.stack import place
from omnialpha.files.writing import write_new
from omnialpha.layers.compositing import flatten, over_colour


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
