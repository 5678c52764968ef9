"""Layers made by ComfyUI are the library's, whichever way the graph goes about it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows/api").glob("*.json"))

# One task per family, with and without guidance, guide, text and alpha.
CASES = {
    "generation": {"task": "text_to_layers", "text": "a red balloon", "guidance": 3.0},
    "completion": {"task": "fg_to_bg", "image": "cutout", "text": "a beach", "fit": "pad"},
    "matting": {"task": "matting_trimap", "image": "photo", "guide": True, "guidance": 2.5, "steps": 3},
    "removal": {"task": "removal_mask", "image": "photo", "guide": True},
    "decomposition": {
        "task": "decomposition_auto",
        "image": "photo",
        "seed": 2**64 - 1,
        "negative": "blur",
        "guidance": 2.0,
    },
}


@pytest.fixture
def run_task(comfy, graph, request):
    """Runs a case through OmniAlphaTask; gives its layers as uint8 [H, W, 4] arrays."""

    def run(case: dict) -> list[np.ndarray]:
        case = dict(case)
        model, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
        inputs = {
            "text": "",
            "instruction": "",
            "seed": 11,
            "steps": 0,
            "guidance": 0.0,
            "sampler": "euler",
            "fit": "scale",
        }
        if (source := case.pop("image", None)) is not None:
            loaded = graph.add("LoadImage", image=request.getfixturevalue(source))
            inputs["image"] = graph.add("OmniAlphaLayer", image=loaded[0], mask=loaded[1])[0]
        if case.pop("guide", False):
            mask = request.getfixturevalue("drawn_mask")
            inputs["guide"] = graph.add("LoadImageMask", image=mask, channel="red")[0]
        layers = graph.add("OmniAlphaTask", model=model, clip=clip, vae=vae, **inputs | case)[0]
        graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix="task")
        return saved(comfy, comfy.run(graph.prompt))

    return run


def saved(comfy, entry: dict, node: str | None = None) -> list[np.ndarray]:
    """What a finished graph saved, in order."""
    outputs = [out for key, out in entry["outputs"].items() if node in (None, key)]
    files = [file for out in outputs for file in out.get("images", [])]
    return [np.array(Image.open(comfy.base / file["type"] / file["subfolder"] / file["filename"])) for file in files]


@pytest.mark.parametrize("family", CASES)
def test_layers_equal_the_librarys(comfy, run_task, pipeline, request, family, record_property):
    case = CASES[family]
    found = run_task(case)
    options = {key: case[key] for key in ("text", "guidance", "steps", "fit", "negative") if key in case}
    if "image" in case:
        options["images"] = [comfy.base / "input" / request.getfixturevalue(case["image"])]
    if "guide" in case:
        options["guide"] = comfy.base / "input" / request.getfixturevalue("drawn_mask")
    wanted = pipeline(case["task"], seed=case.get("seed", 11), **options)
    assert len(found) == len(wanted)
    for array, layer in zip(found, wanted, strict=True):
        assert array.shape == (*layer.shape[1:], 4)
        wanted_array = layer.movedim(0, -1).numpy() * 255
        apart = np.abs(array.astype(float) - wanted_array)
        # Where rounding gives one of the two its first step of alpha, the other has no colour yet.
        apart[(array[..., 3] == 0) != (wanted_array[..., 3].round() == 0), :3] = 0
        record_property("worst", float(apart.max()))
        print(f"{family}: worst {apart.max():.3f}/255, spread {array.std():.1f}")
        assert apart.max() <= 0.6, "half a step is rounding; what is added to it comes from sums in another order"
        assert array.std() > 5, "a flat picture would prove nothing"


@pytest.mark.parametrize(("guidance", "fit"), [(1.0, "scale"), (2.5, "pad")])
def test_steps_one_by_one_equal_the_task_node(comfy, graph, cutout, guidance, fit):
    """Our MODEL, conditioning and sigmas under ComfyUI's own guider and sampler nodes."""
    words = "Draw a background for the object."
    model, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    loaded = graph.add("LoadImage", image=cutout)
    layer = graph.add("OmniAlphaLayer", image=loaded[0], mask=loaded[1])[0]
    task = graph.add(
        "OmniAlphaTask",
        model=model,
        clip=clip,
        vae=vae,
        task="fg_to_bg",
        image=layer,
        text="",
        instruction=words,
        seed=5,
        steps=3,
        guidance=guidance,
        sampler="euler",
        fit=fit,
    )
    whole = graph.add("OmniAlphaSaveLayers", layers=task[0], filename_prefix="whole")[0][0]

    sequence = graph.add("OmniAlphaSequence", layers__layer0=layer, targets=1, width=0, height=0, fit=fit)[0]
    positive, negative, latent, *_ = graph.add(
        "OmniAlphaInstruct", clip=clip, vae=vae, sequence=sequence, instruction=words, negative=""
    )
    patched = graph.add("OmniAlphaPatchModel", model=model, rescale_guidance=True, layer_axis="MSRoPE-BiL")[0]
    guider = graph.add("CFGGuider", model=patched, positive=positive, negative=negative, cfg=guidance)[0]
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=5)[0],
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="euler")[0],
        sigmas=graph.add("OmniAlphaSigmas", latent=latent, steps=3, model=model)[0],
        latent_image=latent,
    )[0]
    layers = graph.add("OmniAlphaDecodeLayers", vae=vae, latent=sampled, sequence=sequence)[0]
    pieces = graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix="pieces")[0][0]

    entry = comfy.run(graph.prompt)
    (one,), (other,) = saved(comfy, entry, whole), saved(comfy, entry, pieces)
    assert np.array_equal(one, other)


def test_text_alone_step_by_step(comfy, graph):
    _, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    sequence = graph.add("OmniAlphaSequence", targets=2, width=64, height=48, fit="scale")[0]
    latent = graph.add("OmniAlphaInstruct", clip=clip, vae=vae, sequence=sequence, instruction="a cat", negative="")[2]
    layers, mask, *_ = graph.add("OmniAlphaDecodeLayers", vae=vae, latent=latent, sequence=sequence)
    flat = graph.add("OmniAlphaCompositeLayers", layers=layers, background="checkerboard")[0]
    graph.add("SaveImage", images=flat, filename_prefix="flat")
    graph.add("OmniAlphaPreviewLayers", layers=layers)
    graph.add("MaskPreview", mask=mask)
    shapes = sorted(array.shape for array in saved(comfy, comfy.run(graph.prompt)))
    assert shapes == [(48, 64, 3)] * 3 + [(48, 64, 4)] * 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shared_workflow_runs(comfy, path):
    """Every API export over HTTP. Those for files we may not ship, or for a pack, get as far as asking for them."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    if any(node["class_type"] == "UnetLoaderGGUF" for node in prompt.values()):
        assert "UnetLoaderGGUF" in json.dumps(comfy.post("/prompt", {"prompt": prompt})["error"])
        return
    if any(node["class_type"] == "UNETLoader" for node in prompt.values()):
        answer = comfy.post("/prompt", {"prompt": prompt})
        errors = [error for node in answer["node_errors"].values() for error in node["errors"]]
        assert errors and {error["type"] for error in errors} == {"value_not_in_list"}, answer
        return
    assert saved(comfy, comfy.run(prompt)), "the workflow shows or saves nothing"
