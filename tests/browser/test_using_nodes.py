"""The task node, the loader's upload and the viewer's languages, as they are drawn: classic and Vue nodes, in every
frontend.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import comfy_server
import frontend
import pytest
import torch

from omnialpha.checkpoint.weights import find_checkpoint
from omnialpha.files.formats import read_stack, write_stack
from omnialpha.files.stack import Stack
from omnialpha.tasks import TASKS

pytestmark = pytest.mark.slow

TYPED = "Cut out the frog, {text}."
CHOICES = ["matting_trimap", "text_to_rgba", "matting_auto"]
PREVIEW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 2, "color": 255}},
    "2": {"class_type": "OmniAlphaPreviewLayers", "inputs": {"layers": ["1", 0], "names": "a\nb"}},
}


def _untrained() -> dict[str, dict]:
    """API graph: a task that its checkpoint was not trained on, one step of it."""
    inputs = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "task": "text_to_rgba", "text": "apple"}
    inputs |= {"instruction": "", "seed": 1, "steps": 1, "guidance": 1.0, "sampler": "euler", "fit": "scale"}
    return {
        "1": {"class_type": "OmniAlphaLoadCheckpoint", "inputs": {"checkpoint": "few"}},
        "2": {"class_type": "OmniAlphaTask", "inputs": inputs | {"width": 32, "height": 32}},
        "3": {"class_type": "OmniAlphaPreviewLayers", "inputs": {"layers": ["2", 0], "names": ""}},
    }


@pytest.fixture(scope="module")
def stack() -> Stack:
    layers = torch.rand(2, 4, 24, 32, generator=torch.Generator().manual_seed(3))
    layers[0, 3] = 1
    return Stack(list((layers * 255).round() / 255), ["sky", "disc"])


@pytest.fixture(scope="module")
def few(fresh: comfy_server.ComfyServer) -> Iterator[None]:
    """While it is used, a checkpoint "few" that was trained on one task."""
    folder = fresh.base / "models/omnialpha/few"
    shutil.copytree(find_checkpoint("micro"), folder)
    says = json.loads((folder / "omnialpha.json").read_text(encoding="utf-8")) | {"tasks": ["matting_auto"]}
    (folder / "omnialpha.json").write_text(json.dumps(says), encoding="utf-8")
    yield
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def used(fresh, few, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What tools/drive_nodes.mjs saw in one frontend, and the layers that the uploaded file gave."""
    folder = tmp_path_factory.mktemp("using")
    files = {format: write_stack(stack, folder / "layered", format)[0] for format in ("psd", "ora")}
    order = {"folder": folder, "tasks": CHOICES, "typed": TYPED, "untrained": _untrained(), "preview": PREVIEW}
    seen = frontend.run_script("drive_nodes.mjs", {"url": fresh.url, **order, **files}, seconds=1800)
    fresh.run(
        {
            "1": {"class_type": "OmniAlphaLoadLayers", "inputs": {"file": "layered.psd", "clean_hidden": False}},
            "2": {
                "class_type": "OmniAlphaSaveLayers",
                "inputs": {"layers": ["1", 0], "filename_prefix": "back", "format": "ora", "names": ["1", 2]},
            },
        }
    )
    return seen | {"loaded": read_stack(next((fresh.base / "output").glob("back*.ora")))}


@pytest.fixture(params=["classic", "vue"])
def facts(used: dict[str, dict], request: pytest.FixtureRequest) -> dict:
    assert used[request.param]["isVue"] == (request.param == "vue")
    return used[request.param]


def test_sockets_are_drawn_with_their_role(facts: dict):
    shown = {task: seen["sockets"] for task, seen in facts["task"]["shown"].items()}
    start = ["model", "clip", "vae"]
    assert shown["matting_trimap"] == [*start, "picture", "trimap (1 = object, 0.5 = unknown)"]
    assert shown["text_to_rgba"] == [*start, "picture: not used by this task", "guide: not used by this task"]
    assert shown["matting_auto"] == [*start, "picture", "guide: not used by this task"]


def test_instruction_is_seen_and_editable(facts: dict):
    for task, seen in facts["task"]["shown"].items():
        text, instruction = seen["hints"]
        assert instruction.endswith(TASKS[task].instruction)
        assert text.endswith("not used by this task") == (TASKS[task].text == "none")
    assert facts["task"]["told"] == TYPED


def test_note_says_what_the_checkpoint_was_not_trained_on(facts: dict):
    assert facts["failed"] is None
    assert "This checkpoint was not trained on 'text_to_rgba'" in facts["note"]


def test_layered_files_are_uploaded_and_loaded(facts: dict, used: dict[str, dict], stack: Stack):
    assert {".psd", ".psb", ".ora", "image/*"} == set(facts["loader"]["offered"].split(","))
    assert facts["loader"]["chosen"] == {"file": "layered.psd", "pictures": 0}
    assert facts["loader"]["dropped"] == {"file": "dropped.ora", "pictures": 0}
    assert "failed" not in facts["loader"]["said"] and "Error" not in facts["loader"]["said"]
    assert used["loaded"].names == stack.names
    for found, wanted in zip(used["loaded"].layers, stack.layers, strict=True):
        assert torch.allclose(found, wanted, atol=0.51 / 255)


def test_nothing_goes_wrong_unseen(facts: dict):
    assert facts["problems"] == []


@pytest.mark.parametrize("mode", ["classic", "vue"])
def test_viewer_speaks_chinese(used: dict[str, dict], mode: str):
    facts = used["chinese"][mode]
    locales = Path(comfy_server.ROOT / "locales/zh")
    words = json.loads((locales / "main.json").read_text(encoding="utf-8"))["omnialpha"]["viewer"]
    name = json.loads((locales / "nodeDefs.json").read_text(encoding="utf-8"))["OmniAlphaPreviewLayers"]["display_name"]
    assert facts["error"] is None
    assert facts["before"] == [words["empty"]]
    assert {words["background"], words["all"], words["white"], words["enlarge"]} <= set(facts["spoken"])
    assert {words[key].replace("{name}", "b") for key in ("show", "solo", "opacity")} <= set(facts["spoken"])
    assert name in facts["titles"]
    if mode == "vue":
        assert any(name in header for header in facts["headers"])
