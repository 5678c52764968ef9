"""Layers made by ComfyUI are the library's, whichever way the graph goes about it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnialpha.files.pictures import read_layer
from omnialpha.tasks import TASKS

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows/api").glob("*.json"))

# At least one task per family, with and without guidance, guide, text and alpha.
CASES = {
    "generation": {"task": "text_to_layers", "text": "a red balloon", "guidance": 3.0},
    "completion": {"task": "fg_to_bg", "image": "cutout", "text": "a beach", "fit": "pad"},
    "matting": {"task": "matting_trimap", "image": "photo", "guide": "drawn_mask", "guidance": 2.5, "steps": 3},
    "removal": {"task": "removal_mask", "image": "photo", "guide": "drawn_mask"},
    "decomposition": {
        "task": "decomposition_auto",
        "image": "photo",
        "seed": 2**64 - 1,
        "negative": "blur",
        "guidance": 2.0,
    },
    # A picture that is larger than what the model sees, so that it looks through a window.
    "close matting": {"task": "matting_mask", "image": "scene", "guide": "scene_mask"},
    "close removal": {"task": "removal_auto", "image": "scene"},
    "close decomposition": {
        "task": "decomposition_trimap",
        "image": "scene",
        "guide": "scene_mask",
        "snap_alpha": True,
    },
    "whole matting": {"task": "matting_auto", "image": "scene", "look": "whole"},
    "drawn matting": {"task": "matting_auto", "image": "scene", "pixels": "redraw"},
    "drawn removal": {"task": "removal_mask", "image": "photo", "guide": "drawn_mask", "pixels": "redraw"},
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
        if guide := case.pop("guide", None):
            mask = request.getfixturevalue(guide)
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
    same = ("text", "guidance", "steps", "fit", "negative", "pixels", "look")
    options = {key: case[key] for key in same if key in case} | {"snap": case.get("snap_alpha", False)}
    if "image" in case:
        options["images"] = [comfy.base / "input" / request.getfixturevalue(case["image"])]
    if "guide" in case:
        options["guide"] = comfy.base / "input" / request.getfixturevalue(case["guide"])
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


def one_by_one(graph, loaded, layers: list, words: str, targets: int = 1, guidance: float = 1.0, fit: str = "scale"):
    """A pass with ComfyUI's own guider and sampler nodes: (sampled latent, sequence), of seed 5 and 3 steps."""
    model, clip, vae, *_ = loaded
    inputs = {f"layers__layer{k}": layer for k, layer in enumerate(layers)}
    sequence = graph.add("OmniAlphaSequence", **inputs, targets=targets, width=0, height=0, fit=fit)[0]
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
    return sampled, sequence


def whole_task(graph, loaded, task: str, words: str, **inputs) -> list:
    """The outputs of the task node, asked for the same."""
    model, clip, vae, *_ = loaded
    fixed = {"text": "", "instruction": words, "seed": 5, "steps": 3, "guidance": 1.0, "sampler": "euler"}
    return graph.add("OmniAlphaTask", model=model, clip=clip, vae=vae, task=task, **fixed | {"fit": "scale"} | inputs)


def save(graph, prefix: str, layers) -> str:
    """A saver that keeps all the precision there is; its node."""
    return graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix=prefix, format="png16")[0][0]


def deep(comfy, entry: dict, node: str) -> list[np.ndarray]:
    """The 16-bit layers that a node saved, [4, H, W] each."""
    files = entry["outputs"][node]["images"]
    return [read_layer(comfy.base / "output" / file["subfolder"] / file["filename"]).numpy() for file in files]


@pytest.mark.parametrize(("guidance", "fit"), [(1.0, "scale"), (2.5, "pad")])
def test_steps_one_by_one_equal_the_task_node(comfy, graph, cutout, guidance, fit):
    """Our MODEL, conditioning and sigmas under ComfyUI's own guider and sampler nodes."""
    words = "Draw a background for the object."
    loaded = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    image, mask, *_ = graph.add("LoadImage", image=cutout)
    layer = graph.add("OmniAlphaLayer", image=image, mask=mask)[0]
    whole = whole_task(graph, loaded, "fg_to_bg", words, image=layer, guidance=guidance, fit=fit)[0]
    sampled, sequence = one_by_one(graph, loaded, [layer], words, guidance=guidance, fit=fit)
    pieces = graph.add("OmniAlphaDecodeLayers", vae=loaded[2], latent=sampled, sequence=sequence)[0]
    savers = [save(graph, name, layers) for name, layers in (("whole", whole), ("pieces", pieces))]
    entry = comfy.run(graph.prompt)
    (one,), (other,) = (deep(comfy, entry, saver) for saver in savers)
    assert np.array_equal(one, other)


KEPT = {
    "matting_trimap": {},
    "removal_mask": {"guidance": 2.0},
    "decomposition_coarse_mask": {"fit": "pad"},
    "fg_to_full": {},
    "matting_mask": {"pixels": "redraw"},
}


@pytest.mark.parametrize("task", KEPT)
def test_window_and_keep_pixels_equal_the_task_node(comfy, graph, scene, scene_mask, cutout, task):
    """Window, sequence ... decode, Keep Pixels: bit for bit what the task node gives, its composite as well."""
    row, asked = TASKS[task], KEPT[task]
    kept, passed = {"pixels": asked.get("pixels", "keep")}, {k: v for k, v in asked.items() if k != "pixels"}
    loaded = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    vae, words = loaded[2], row.instruction
    loads = graph.add("LoadImage", image=scene if row.guide_role else cutout)
    layer = graph.add("OmniAlphaLayer", image=loads[0], mask=loads[1])[0]
    savers = []
    if row.guide_role:
        guide = graph.add("LoadImageMask", image=scene_mask, channel="red")[0]
        if kept["pixels"] == "keep":
            fit = {"fit": passed["fit"]} if "fit" in passed else {}
            cut, marked, window, *_ = graph.add("OmniAlphaWindow", vae=vae, task=task, image=layer, guide=guide, **fit)
            savers.append(save(graph, "window", graph.add("MaskToImage", mask=window)[0]))
            place = {"window": window}
        else:
            cut, marked, place = layer, guide, {}
        given = {"guide": guide}
        seen = [cut, graph.add("MaskToImage", mask=marked)[0]]
    else:
        given, seen, place = {}, [layer], {}
    whole = whole_task(graph, loaded, task, words, image=layer, **given, **kept, **passed)
    sampled, sequence = one_by_one(graph, loaded, seen, words, len(row.targets), **passed)
    layers = graph.add("OmniAlphaDecodeLayers", vae=vae, latent=sampled, sequence=sequence)[0]
    pieces = graph.add(
        "OmniAlphaKeepPixels", vae=vae, task=task, image=layer, layers=layers, sequence=sequence, **place, **kept
    )
    savers = [*(save(graph, f"kept{k}", made[k]) for made in (whole, pieces) for k in (0, 2)), *savers]
    entry = comfy.run(graph.prompt)
    found, flat, other, other_flat, *windows = (deep(comfy, entry, saver) for saver in savers)
    assert len(found) == len(row.targets)
    assert all(np.array_equal(a, b) for a, b in zip([*found, *flat], [*other, *other_flat], strict=True))
    assert all(0.01 < window[0].mean() < 0.7 for window in windows), "a window, or it proves nothing"


@pytest.mark.parametrize("task", ["matting_auto", "removal_auto", "decomposition_text"])
def test_two_passes_equal_the_task_node(comfy, graph, scene, task):
    """Without a guide a first pass finds the window, and a second looks through it."""
    row = TASKS[task]
    loaded = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    vae, words = loaded[2], row.fill("red disc")
    picture = graph.add("LoadImage", image=scene)[0]
    sampled, sequence = one_by_one(graph, loaded, [picture], words, len(row.targets))
    first = graph.add("OmniAlphaDecodeLayers", vae=vae, latent=sampled, sequence=sequence, restore_frame=False)[0]
    cut, _, window, *_ = graph.add("OmniAlphaWindow", vae=vae, task=task, image=picture, layers=first)
    sampled, sequence = one_by_one(graph, loaded, [cut], words, len(row.targets))
    second = graph.add("OmniAlphaDecodeLayers", vae=vae, latent=sampled, sequence=sequence)[0]
    common = {"vae": vae, "task": task, "image": picture, "layers": second, "sequence": sequence}
    pieces = graph.add("OmniAlphaKeepPixels", **common, window=window)[0]
    whole = whole_task(graph, loaded, task, words, image=picture)[0]
    savers = [save(graph, "one", whole), save(graph, "other", pieces)]
    seen = save(graph, "window", graph.add("MaskToImage", mask=window)[0])
    entry = comfy.run(graph.prompt)
    found, wanted = (deep(comfy, entry, saver) for saver in savers)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert 0.01 < deep(comfy, entry, seen)[0][0].mean() < 0.7, "a window, or it proves nothing"


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
