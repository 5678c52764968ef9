"""The picture formats that we name are opened, and no other, whatever a file is called."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
import torch
from PIL import Image, UnidentifiedImageError

from omnialpha.batch.results import Damaged, check
from omnialpha.data.backgrounds import _decode
from omnialpha.data.objects import ObjectFile, open_object
from omnialpha.errors import OmniAlphaError
from omnialpha.files.formats import PICTURES
from omnialpha.files.opening import ENDINGS, FORMATS, open_picture
from omnialpha.files.pictures import read_layer

ROOT = Path(__file__).resolve().parent.parent
Image.init()
MODES = ("RGB", "RGBA", "L", "P", "1", "F")


def encoded(format: str, side: int = 128) -> bytes | None:
    """A picture in a format, in the first mode that it takes; None where Pillow only knows it by name."""
    for mode in MODES:
        data = io.BytesIO()
        try:
            Image.new("RGBA", (side, side), (200, 10, 10, 255)).convert(mode).save(data, format)
            return data.getvalue()
        except (OSError, ValueError, KeyError):
            continue
    return None


# What Pillow writes and reads, but ours. MPO, several JPEGs in one file, begins as a JPEG.
OTHERS = sorted((set(Image.SAVE) & set(Image.OPEN)) - set(FORMATS) - {"MPO"})
OTHERS = [format for format in OTHERS if encoded(format)]


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("format", OTHERS)
def test_no_other_format_is_opened(tmp_path, format):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(format))
    with pytest.raises(OmniAlphaError, match="Expected one of: PNG, WEBP, TIFF"):
        read_layer(path)
    with pytest.raises(UnidentifiedImageError):
        open_picture(path)
    with pytest.raises(Damaged):
        check(path, path.name)
    for read in (lambda: _decode(path, 64), lambda: open_object(ObjectFile("a picture", "train", path))):
        with pytest.raises(OmniAlphaError, match="cannot be read"):
            read()


@pytest.mark.parametrize("format", [name for name in FORMATS if name in Image.SAVE])
def test_ours_are_opened_whatever_they_are_called(tmp_path, format):
    path = tmp_path / "picture.dat"
    path.write_bytes(encoded(format, 64))
    layer = read_layer(path)
    assert layer.shape == (4, 64, 64) and bool((layer[3] == 1).all())
    assert torch.allclose(layer[:3, 32, 32], torch.tensor([200, 10, 10]) / 255, atol=0.03)


def test_a_cameras_two_pictures_in_one_file_are_read(tmp_path):
    first, second = (Image.new("RGB", (64, 64), colour) for colour in ((200, 10, 10), (0, 0, 255)))
    first.save(tmp_path / "camera.jpg", "MPO", save_all=True, append_images=[second])
    assert read_layer(tmp_path / "camera.jpg")[0, 32, 32] > 0.7


def test_there_are_others():
    assert {"PCX", "SGI", "DDS", "ICNS", "PPM", "ICO"} <= set(OTHERS)


def test_the_formats_of_a_folders_files_are_those():
    assert PICTURES == ENDINGS and {"png", "jpg", "tga"} <= {ending[1:] for ending in ENDINGS}


def test_pictures_are_opened_in_one_place():
    found = []
    for path in [*ROOT.glob("omnialpha/**/*.py"), *ROOT.glob("nodes/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                found.append(str(path.relative_to(ROOT)))
    assert found == ["omnialpha/files/opening.py"], "call open_picture instead"
