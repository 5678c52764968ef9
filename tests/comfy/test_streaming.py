"""Micro's layers are the same however ComfyUI keeps its weights: streamed, fetched by layer, or as its options say.

What takes a GPU is simulated (`inside/simulate.py`). Every mode is a process of its own, without a server.
"""

from __future__ import annotations

import re
from pathlib import Path

import comfy_server
import pytest
import torch
from safetensors.torch import load_file

FOUND = comfy_server.find_comfyuis()
INSIDE = Path(__file__).resolve().parent / "inside"

# Name -> what `inside/run.py` is told. Micro is always in float32, so none of these may change a value.
STREAMING = {
    "streaming": {"simulate": "streaming"},
    "streaming patcher": {"simulate": "streaming_patcher"},
}
OPTIONS = {
    "--lowvram": {"arguments": ["--lowvram"], "simulate": "partly_loaded"},
    "--novram": {"arguments": ["--novram"], "simulate": "partly_loaded"},
    **{
        option: {"arguments": [option]}
        for option in ("--cpu-vae", "--fp16-vae", "--bf16-vae", "--fast", "--force-fp16")
    },
}
LOADERS = re.findall(r"^def (check_\w+)", (INSIDE / "streaming_loaders.py").read_text(), re.MULTILINE)

# ComfyUI logs this on a CPU only, where a CLIP counts as loaded from the start: of every copy that it makes of one.
COPIES_ON_CPU = "memory leak with model Model"


def can_stream(found: comfy_server.Found) -> bool:
    """Has this release the patcher that streams? One that is not there is taken to have it, so that it is missed."""
    file = found.folder / "comfy/model_patcher.py"
    return not file.is_file() or "class ModelPatcherDynamic" in file.read_text(encoding="utf-8")


def on(found: comfy_server.Found, *rest: str) -> pytest.param:
    marks = [pytest.mark.skip(reason=found.why_not)] if found.why_not else []
    return pytest.param(found.folder, *rest, id="-".join((found.version, *rest)), marks=marks)


def of_streaming(names) -> list:
    return [on(found, name) for found in FOUND if can_stream(found) for name in names]


@pytest.fixture(scope="session")
def layers(run_inside, tmp_path_factory):
    """Runs micro in a mode, once, and gives what was found and its tensors."""
    known = {}

    def run(comfyui: Path, name: str, **job) -> tuple[dict, dict[str, torch.Tensor]]:
        if (comfyui, name) not in known:
            scratch = tmp_path_factory.mktemp("mode")
            (result,) = run_inside(comfyui, scratch, files="mode_layers.py", **job).values()
            assert result["error"] is None, result["error"]
            known[comfyui, name] = result, load_file(scratch / "layers.safetensors")
        return known[comfyui, name]

    return run


@pytest.mark.parametrize(
    ("comfyui", "mode"), [*of_streaming(STREAMING), *(on(found, name) for found in FOUND for name in OPTIONS)]
)
def test_layers_are_the_same_in_every_mode(layers, comfyui, mode):
    job = (STREAMING | OPTIONS)[mode]
    plain, wanted = layers(comfyui, "plain")
    result, found = layers(comfyui, mode, **job)
    print(result["measured"])
    assert not result["warnings"], result["warnings"]
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), (name, float((found[name] - tensor).abs().max()))
    if job.get("simulate") == "partly_loaded":
        assert result["measured"]["cast at use"] > plain["measured"]["cast at use"]
    assert result["measured"]["dynamic"] is (job.get("simulate") == "streaming_patcher")


@pytest.fixture(scope="session")
def loaders(run_inside, tmp_path_factory):
    """What the checks of streaming_loaders.py found, in one process per ComfyUI."""
    known = {}

    def run(comfyui: Path) -> dict[str, dict]:
        if comfyui not in known:
            scratch = tmp_path_factory.mktemp("loaders")
            known[comfyui] = run_inside(comfyui, scratch, files="streaming_*.py", simulate="streaming_patcher")
        return known[comfyui]

    return run


@pytest.mark.parametrize(("comfyui", "name"), of_streaming(LOADERS))
def test_loaders_where_weights_stream(loaders, comfyui, name):
    result = loaders(comfyui)[f"streaming_loaders.{name}"]
    print(result["measured"])
    assert result["error"] is None, result["error"]
    assert name == "check_damaged_files_are_refused" or all(COPIES_ON_CPU in word for word in result["warnings"])
