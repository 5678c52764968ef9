"""Micro's layers are the same however ComfyUI keeps its weights: streamed, fetched by layer, or as its options say.

What takes a GPU is simulated (`inside/simulate.py`). Every mode is a process of its own, most without a server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import comfy_server
import pytest
import torch
from safetensors.torch import load_file

FOUND = comfy_server.find_comfyuis()
INSIDE = Path(__file__).resolve().parent / "inside"
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows/api"

# Name -> what `inside/run.py` is told.
MODES = {
    "streaming": {"simulate": "streaming"},
    "streaming patcher": {"simulate": "streaming_patcher"},
    "--lowvram": {"arguments": ["--lowvram"], "simulate": "partly_loaded"},
    "--novram": {"arguments": ["--novram"], "simulate": "partly_loaded"},
    **{
        option: {"arguments": [option]}
        for option in ("--cpu-vae", "--fp16-vae", "--bf16-vae", "--fast", "--force-fp16")
    },
}
STREAMING = [name for name in MODES if name.startswith("streaming")]

# Of 255, where ComfyUI chooses the precision. A VAE in half precision is the only thing that may change a value, and
# micro, which is always in float32, has none.
TOLERANCE = {"--fp16-vae": 1, "--bf16-vae": 2}
STREAMING_PACK = f"{(INSIDE / 'simulate.py').read_text(encoding='utf-8')}\nstreaming()\nNODE_CLASS_MAPPINGS = {{}}\n"
LOADERS = re.findall(r"^def (check_\w+)", (INSIDE / "streaming_loaders.py").read_text(), re.MULTILINE)

# ComfyUI logs this on a CPU only, where a CLIP counts as loaded from the start: of every copy that it makes of one.
COPIES_ON_CPU = "memory leak with model Model"


def can_stream(found: comfy_server.Found) -> bool:
    """Has this release the patcher that streams? One that is not there is taken to have it, so that it is missed."""
    file = found.folder / "comfy/model_patcher.py"
    return not file.is_file() or "class ModelPatcherDynamic" in file.read_text(encoding="utf-8")


def on(found: comfy_server.Found, *name: str) -> pytest.param:
    marks = [pytest.mark.skip(reason=found.why_not)] if found.why_not else []
    return pytest.param(found.folder, *name, id="-".join((found.version, *name)).replace("check_", ""), marks=marks)


@pytest.fixture(scope="session")
def made(run_inside, tmp_path_factory):
    """Runs mode_layers.py in a mode, once; gives its results and the layers it made, both by what was loaded."""
    known = {}

    def run(comfyui: Path, name: str, **job) -> tuple[dict[str, dict], dict[str, torch.Tensor]]:
        if (comfyui, name) not in known:
            scratch = tmp_path_factory.mktemp("mode")
            results = run_inside(comfyui, scratch, files="mode_layers.py", **job)
            for result in results.values():
                assert result["error"] is None, result["error"]
            layers = {file.stem: load_file(file)["layers"] for file in scratch.glob("*.safetensors")}
            known[comfyui, name] = results, layers
        return known[comfyui, name]

    return run


@pytest.mark.parametrize(
    ("comfyui", "mode"),
    [on(found, mode) for found in FOUND for mode in MODES if mode not in STREAMING or can_stream(found)],
)
def test_layers_are_the_same_in_every_mode(made, comfyui, mode, record_property):
    _, wanted = made(comfyui, "plain")
    results, found = made(comfyui, mode, **MODES[mode])
    assert not [result["warnings"] for result in results.values() if result["warnings"]]
    apart = {name: float((found[name] - layers).abs().max()) * 255 for name, layers in wanted.items()}
    record_property("apart", apart)
    print(apart, [result["measured"] for result in results.values()])
    assert apart["micro"] == 0 and apart["chosen"] <= TOLERANCE.get(mode, 0) + 1e-4, apart
    measured = results["mode_layers.check_the_task_node_and_single_steps"]["measured"]
    assert measured["dynamic"] is (mode == "streaming patcher")
    assert (measured["cast at use"] > 0) is (MODES[mode].get("simulate") in ("partly_loaded", "streaming_patcher"))


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


@pytest.mark.parametrize(
    ("comfyui", "name"), [on(found, name) for found in FOUND if can_stream(found) for name in LOADERS]
)
def test_loaders_where_weights_stream(loaders, comfyui, name):
    result = loaders(comfyui)[f"streaming_loaders.{name}"]
    print(result["measured"])
    assert result["error"] is None, result["error"]
    assert name == "check_damaged_files_are_refused" or all(COPIES_ON_CPU in word for word in result["warnings"])


@pytest.mark.parametrize("comfyui", [on(found) for found in FOUND if can_stream(found)])
def test_workflows_run_on_a_server_that_streams(comfyui):
    """In ComfyUI's own executor: the task node, and its single steps."""
    with comfy_server.ComfyServer(comfyui=comfyui, other_packs={"streaming.py": STREAMING_PACK}) as server:
        before = len(server.output())
        for name in ("omnialpha_quick_start", "omnialpha_decomposition_step_by_step"):
            entry = server.run(json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))
            assert any(output.get("images") for output in entry["outputs"].values()), entry
        log = server.output()[before:]
    assert "Prompt executed" in log and not re.search("warning|error", log, re.IGNORECASE), log
