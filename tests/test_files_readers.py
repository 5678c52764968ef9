"""Our layered files, opened by readers that share no code with ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from stacks import example, same

from omnialpha.files.formats import write_stack
from omnialpha.files.pictures import read_layer
from omnialpha.layers.compositing import flatten, over_colour


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
    command = ["Xvfb", "-noreset", "-displayfd", str(writable)]  # a reset after a client left refuses the next one
    server = subprocess.Popen(command, pass_fds=[writable], stderr=subprocess.DEVNULL)
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
