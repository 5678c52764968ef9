"""Reading every kind of picture file, and writing PNGs whole or not at all."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from omnialpha.errors import OmniAlphaError
from omnialpha.files import pictures
from omnialpha.files.pictures import from_pil, read_layer, to_pil, to_uint8, write_layer

EXIF_ORIENTATION = 0x0112


def noise(height, width, channels=4, dtype=np.uint8):
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


def saved(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def png16(pixels, colour_type, key_colour=None):
    """A 16-bit PNG, which PIL cannot write: 0 grey, 2 RGB, 4 grey + alpha, 6 RGBA."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    key = chunk(b"tRNS", np.asarray(key_colour, ">u2").tobytes()) if key_colour is not None else b""
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def same_pixels(layer, pixels):
    """Does a layer hold exactly these [H, W, 4] 8-bit pixels?"""
    assert layer.dtype == torch.float32 and layer.is_contiguous()
    return np.array_equal(to_uint8(layer).numpy(), pixels)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (64, 1)])
def test_rgba_png_round_trip(tmp_path, height, width):
    pixels = noise(height, width)
    path = saved(tmp_path, Image.fromarray(pixels))
    layer = read_layer(path)
    assert layer.shape == (4, height, width) and same_pixels(layer, pixels)
    write_layer(layer, tmp_path / "again.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "again.png")), pixels), "hidden colours included"


def test_modes_without_alpha_are_opaque(tmp_path):
    grey = Image.fromarray(noise(4, 6, 1)[..., 0])
    for mode in ("1", "L", "RGB", "P", "CMYK", "YCbCr", "HSV", "F", "I"):
        layer = from_pil(grey.convert(mode))
        assert layer.shape == (4, 4, 6) and layer[3].eq(1).all(), mode
        assert layer.min() >= 0 and layer.max() <= 1
    for mode in ("L", "RGB", "CMYK"):
        assert same_pixels(from_pil(grey.convert(mode)), np.asarray(grey.convert("RGBA")))


def test_modes_that_pil_cannot_convert(monkeypatch):
    def refuse(image, mode):
        raise ValueError("conversion not supported")

    image = Image.new("LAB", (2, 2))
    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(OmniAlphaError, match="mode LAB"):
        from_pil(image)


@pytest.mark.parametrize("name", ["cmyk.jpg", "cmyk.tif"])
def test_cmyk(tmp_path, name):
    path = saved(tmp_path, Image.new("CMYK", (4, 3), (0, 255, 255, 0)), name)
    red = read_layer(path)[:, 0, 0]
    torch.testing.assert_close(red, torch.tensor([1.0, 0, 0, 1]), atol=0.02, rtol=0)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    one = read_layer(saved(tmp_path, image, "index.png", transparency=1))
    assert one[3].tolist() == [[1, 0, 1]] and one[:3, 0, 0].tolist() == [1, 0, 0]
    many = read_layer(saved(tmp_path, image, "table.png", transparency=bytes([255, 51, 0])))
    torch.testing.assert_close(many[3], torch.tensor([[1, 0.2, 0]]))
    gif = read_layer(saved(tmp_path, image, "index.gif", transparency=2))
    assert gif[3].tolist() == [[1, 1, 0]]


def test_transparent_colour_of_grey_and_rgb(tmp_path):
    grey = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert read_layer(saved(tmp_path, grey, "grey.png", transparency=20))[3].tolist() == [[1, 0]]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert read_layer(saved(tmp_path, rgb, "rgb.png", transparency=(1, 2, 3)))[3].tolist() == [[0, 1]]


@pytest.mark.parametrize("colour_type, places", [(0, "ggg1"), (2, "rgb1"), (4, "ggga"), (6, "rgba")])
def test_16_bit_png_keeps_its_precision(tmp_path, colour_type, places):
    count = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    pixels = noise(5, 7, count, np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(png16(pixels, colour_type))
    layer = read_layer(path)
    one = np.full((5, 7), 65535)
    source = {"g": pixels[..., 0], "r": pixels[..., 0], "1": one, "a": pixels[..., -1]}
    if count >= 3:
        source |= {"g": pixels[..., 1], "b": pixels[..., 2]}
    expected = np.stack([source[place] for place in places])
    assert layer.shape == (4, 5, 7)
    assert np.array_equal(np.rint(layer.numpy() * 65535.0), expected)


def test_16_bit_transparent_colour_is_compared_in_full(tmp_path):
    grey, rgb = tmp_path / "grey.png", tmp_path / "rgb.png"
    grey.write_bytes(png16(np.array([[[513], [514]]], np.uint16), 0, [513]))
    rgb.write_bytes(png16(np.array([[[513, 2, 3], [514, 2, 3]]], np.uint16), 2, [513, 2, 3]))
    assert read_layer(grey)[3].tolist() == read_layer(rgb)[3].tolist() == [[0, 1]]


@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
def test_16_bit_tiff(tmp_path, compression):
    pixels = noise(4, 6, 1, np.uint16)[..., 0]
    path = saved(tmp_path, Image.fromarray(pixels), "deep.tif", compression=compression)
    layer = read_layer(path)
    assert np.array_equal(np.rint(layer[0].numpy() * 65535.0), pixels) and layer[3].eq(1).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_rgb_tiff(tmp_path, order):
    """Uncompressed, written by hand: PIL has no 16-bit RGB to write."""
    pixels = noise(2, 3, 3, np.uint16)
    data = pixels.astype(f"{order}u2").tobytes()
    bits = 8 + len(data)
    entries = [(256, 3, 1, 3), (257, 3, 1, 2), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, len(data))]
    raw = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", bits + 6) + data
    raw += struct.pack(f"{order}3H", 16, 16, 16) + struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        form, values = ("HH", (value, 0)) if short else ("I", (value,))
        raw += struct.pack(f"{order}HHI{form}", tag, kind, count, *values)
    path = tmp_path / "deep.tif"
    path.write_bytes(raw + b"\0\0\0\0")
    assert np.array_equal(np.rint(read_layer(path)[:3].numpy() * 65535.0), np.moveaxis(pixels, 2, 0))


def test_numbers_per_pixel():
    assert from_pil(Image.fromarray(np.array([[0, 65535]], np.int32)))[0].tolist() == [[0, 1]]
    assert from_pil(Image.fromarray(np.array([[0, 2**31 - 1]], np.int32)))[0].tolist() == [[0, 1]]
    floats = np.array([[-1, 0.25, 2, math.nan, math.inf]], np.float32)
    assert from_pil(Image.fromarray(floats))[0].tolist() == [[0, 0.25, 1, 0, 1]]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animations_give_their_first_frame(tmp_path, name):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (6, 4), colour) for colour in colours]
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=50, **options)
    layer = read_layer(path)
    assert Image.open(path).n_frames == 3 and layer.shape == (4, 4, 6)
    assert layer[:, 0, 0].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_exif_turns_pictures_upright(tmp_path, orientation, name):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # top left
    upright[8:, 16:] = 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"lossless": True} if name.endswith("webp") else {"quality": 95} if name.endswith("jpg") else {}
    layer = read_layer(saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), name, exif=exif, **options))
    expected = torch.from_numpy(upright.copy()).float() / 255
    torch.testing.assert_close(layer[0], expected, atol=0.1, rtol=0)


def test_exif_turns_16_bit_pictures_too(tmp_path):
    pixels = noise(4, 6, 3, np.uint16)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 3
    data, whole = exif.tobytes().removeprefix(b"Exif\0\0"), png16(pixels, 2)
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    path = tmp_path / "deep.png"
    path.write_bytes(whole[:33] + chunk + whole[33:])
    upright = np.moveaxis(pixels[::-1, ::-1], 2, 0)
    assert np.array_equal(np.rint(read_layer(path)[:3].numpy() * 65535.0), upright)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_exif_costs_the_turn_not_the_picture(tmp_path):
    pixels = noise(4, 6)
    path = saved(tmp_path, Image.fromarray(pixels), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12")
    assert same_pixels(read_layer(path), pixels)


def test_a_photo_of_48_megapixels(tmp_path):
    path = saved(tmp_path, Image.new("L", (8000, 6000), 51), compress_level=1)
    layer = read_layer(path)
    assert layer.shape == (4, 6000, 8000)
    torch.testing.assert_close(layer[:, -1, -1], torch.tensor([0.2, 0.2, 0.2, 1]))


def test_pictures_beyond_the_limit(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (20, 10)))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 199)
    with pytest.raises(OmniAlphaError, match=r"too large: 20x10 pixels\. Expected at most 199"):
        read_layer(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(OmniAlphaError, match="too large"):
        read_layer(path)


def encoded(kind):
    data = io.BytesIO()
    Image.fromarray(noise(40, 30, 3)).save(data, kind)
    return data.getvalue()


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files(tmp_path, kind):
    data, path = encoded(kind), tmp_path / "cut.img"
    for share in (0.02, 0.3, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(OmniAlphaError, match=r"cut\.img"):
            read_layer(path)


def test_a_truncated_16_bit_file(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(png16(noise(40, 30, 4, np.uint16), 6)[:3000])
    with pytest.raises(OmniAlphaError, match="damaged or cut off"):
        read_layer(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=8)
)
def test_damage_anywhere_is_an_error_or_a_picture(tmp_path, kind, place, bytes_):
    data = bytearray(encoded(kind))
    place %= len(data)
    data[place : place + len(bytes_)] = bytes_
    path = tmp_path / "damaged.img"
    path.write_bytes(data)
    try:
        assert read_layer(path).shape[0] == 4
    except OmniAlphaError as error:
        assert str(path) in str(error)


def test_files_that_are_no_pictures(tmp_path):
    for name, data in [("fake.png", b"not a picture"), ("empty.png", b""), ("e.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n")]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(OmniAlphaError, match=name):
            read_layer(tmp_path / name)
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(OmniAlphaError, match="no picture file"):
            read_layer(path)


def test_drawings_are_not_handed_to_other_programs(tmp_path):
    (tmp_path / "e.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(OmniAlphaError, match="Expected one of: PNG"):
        read_layer(tmp_path / "e.eps")


def test_8_bits_are_rounded_not_cut():
    layer = torch.tensor([0.4 / 255, 0.6 / 255, 254.6 / 255, 1.5])[:, None, None]
    assert to_uint8(layer).flatten().tolist() == [0, 1, 255, 255]
    assert to_pil(layer).mode == "RGBA"


def test_written_pngs_carry_text(tmp_path):
    text = {"omnialpha": '{"seed": 7}', "words": "ein Füllhorn 漢字", "number": 3}
    write_layer(torch.rand(4, 2, 3), tmp_path / "a.png", text)
    assert Image.open(tmp_path / "a.png").text == {**text, "number": "3"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_is_never_written(tmp_path, value):
    layer = torch.zeros(4, 2, 2)
    layer[0, 0, 0] = value
    with pytest.raises(OmniAlphaError, match="1 of 16 values"):
        write_layer(layer, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "missing" / "a.png", tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(OmniAlphaError, match="Could not write"):
            write_layer(torch.rand(4, 2, 2), path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX")
def test_a_full_disk_leaves_what_was_there(tmp_path):
    import resource

    write_layer(torch.zeros(4, 2, 2), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # further writes fail as on a full disk
    try:
        with pytest.raises(OmniAlphaError, match="disk has room"):
            write_layer(torch.rand(4, 64, 64), tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_an_interrupt_leaves_what_was_there(tmp_path, monkeypatch):
    write_layer(torch.zeros(4, 2, 2), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_layer(torch.rand(4, 2, 2), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="umask is POSIX")
def test_files_get_the_usual_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        write_layer(torch.zeros(4, 2, 2), tmp_path / "a.png")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o644
