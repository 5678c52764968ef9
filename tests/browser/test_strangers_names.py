"""Names of layers and files, captions and other words of strangers are text in the page, never scripts: in notes, in
the viewer, in refusals, in errors and in lists, on classic and on Vue nodes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import comfy_server
import frontend
import psd_tools
import pytest
import torch
from psd_tools.constants import BlendMode

from omnialpha.files.formats import write_stack
from omnialpha.files.stack import Stack

pytestmark = pytest.mark.slow

TAG = "<img src=x onerror=ran()>"
SHOWN = "‹img src=x onerror=ran()›"
NAMES = [TAG, "<svg onload=ran()>{name} $& &lt;b&gt;"]
PREVIEW, ANY = "OmniAlphaPreviewLayers", "PreviewAny"


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def loaded(file: str) -> dict:
    """API graph: the layers of a file in the viewer, their names there and in ComfyUI's own node for texts."""
    return {
        "1": node("OmniAlphaLoadLayers", file=file, clean_hidden=True, hidden_layers=False),
        "2": node(PREVIEW, layers=["1", 0], names=["1", 2]),
        "3": node(ANY, source=["1", 2]),
    }


EMPTY = node("EmptyImage", width=32, height=32, batch_size=1, color=255)
GRAPHS = {
    "psd": loaded("a.psd"),
    "ora": loaded("a.ora"),
    "file": loaded(f"{TAG}.psd"),
    "caption": {
        "1": EMPTY,
        "2": node("OmniAlphaLoadCheckpoint", checkpoint="micro"),
        "3": node("OmniAlphaTask", model=["2", 0], clip=["2", 1], vae=["2", 2], task="matting_auto", image=["1", 0],
                  text=TAG, instruction="Cut it out.", seed=1, steps=1, guidance=1.0, sampler="euler", fit="scale"),
        "4": node(PREVIEW, layers=["3", 0], names=TAG),
    },
    "error": {
        "1": EMPTY,
        "2": node("OmniAlphaCompositeLayers", layers=["1", 0], background="colour", colour=TAG, linear_light=False),
        "3": node(PREVIEW, layers=["2", 0], names=""),
    },
    "refusal": loaded(f"../{TAG}"),
}  # fmt: skip


def write_files(folder: Path, inputs: Path) -> None:
    """Layered files with such names, whose layers have a blend mode, so that there is something to say about them."""
    layers = list(torch.rand(2, 4, 24, 32, generator=torch.Generator().manual_seed(3)))
    (psd,) = write_stack(Stack(layers, NAMES), folder / "plain", "psd")
    (ora,) = write_stack(Stack(layers, NAMES), folder / "plain", "ora")
    document = psd_tools.PSDImage.open(psd)
    for layer in document:
        layer.blend_mode = BlendMode.MULTIPLY
    document.save(inputs / "a.psd")
    (inputs / f"{TAG}.psd").write_bytes((inputs / "a.psd").read_bytes())
    with zipfile.ZipFile(ora) as source, zipfile.ZipFile(inputs / "a.ora", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(b"svg:src-over", b"svg:multiply") if name == "stack.xml" else content)


@pytest.fixture(scope="module")
def seen(fresh: comfy_server.ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What tools/drive_names.mjs saw in one frontend."""
    inputs, folder = fresh.base / "input", tmp_path_factory.mktemp("names")
    before = set(inputs.iterdir())
    write_files(folder, inputs)
    order = {
        "folder": folder,
        "graphs": GRAPHS,
        "dropped": f"{TAG}.png",
        "list": "OmniAlphaLoadLayers",
        "listed": "file",
    }
    try:
        return frontend.run_script("drive_names.mjs", {"url": fresh.url, **order}, seconds=1200)
    finally:
        for path in set(inputs.iterdir()) - before:
            path.unlink()


@pytest.mark.parametrize("mode", ["classic", "vue"])
def test_no_word_of_a_stranger_runs(seen: dict[str, dict], mode: str):
    assert not {name: facts["ran"] for name, facts in seen[mode].items() if facts["ran"]}
    assert set(seen[mode]) >= set(GRAPHS)


@pytest.mark.parametrize("mode", ["classic", "vue"])
def test_words_of_strangers_are_read_as_they_are(seen: dict[str, dict], mode: str):
    facts = seen[mode]
    for name in ("psd", "ora", "file"):
        assert facts[name]["end"] == "success"
        assert sorted(facts[name]["labels"]) == sorted(NAMES), "in the viewer, letter by letter"
        assert f"'{SHOWN}' has blend mode multiply" in "".join(facts[name]["said"]), "in the note"
    assert f"{SHOWN}.psd" in "".join(facts["file"]["said"])
    assert facts["caption"]["labels"] == [TAG] and f'"{SHOWN}" is not looked at' in "".join(facts["caption"]["said"])
    assert TAG in facts["error"]["end"] and facts["refusal"]["end"] == "refused"
    if mode == "classic":
        assert {"a.ora", "a.psd"} <= set(facts["list"]["entries"])
        assert not [entry for entry in facts["list"]["entries"] if "<" in entry]
        assert facts["list"]["chosen"] == "_img src=x onerror=ran()_.png", "an upload gets a name that is no tag"
