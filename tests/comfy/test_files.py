"""Layers out of a real ComfyUI and into it again: formats, names, metadata, and folders that are not to be left."""

import io
import json
import urllib.parse
import urllib.request
import zipfile

import pytest
import torch
from PIL import Image

from omnialpha.files.formats import read_stack, write_stack
from omnialpha.files.pictures import read_layer, write_layer
from omnialpha.files.stack import Stack
from omnialpha.layers.compositing import clean_hidden, flatten, opaque, over_colour


@pytest.fixture(scope="module")
def stack(comfy) -> Stack:
    """Two layers on steps of 16 bits, put into the input folder as 16-bit PNGs, PSD and OpenRaster."""
    layers = torch.rand(2, 4, 24, 32, generator=torch.Generator().manual_seed(5))
    layers[0, 3], layers[1, 3, :8], layers[1, 3, 16:] = 1, 0, 1
    found = Stack([clean_hidden(layer) for layer in (layers * 65535).round() / 65535], ["Himmel", "树"])
    folder = comfy.base / "input/stack"
    folder.mkdir()
    write_stack(found, folder / "s", "png16")
    for format in ("psd", "ora"):
        write_stack(found, comfy.base / "input/whole", format)
    return found


def load(graph, together=True, **inputs):
    standard = {"source": "input", "folder": "stack", "pattern": "*", "together": together}
    return graph.add("OmniAlphaLoadLayersFromFolder", **standard | inputs)


def save(comfy, graph, layers, **inputs) -> dict:
    """What the history says of the one save node."""
    graph.add("OmniAlphaSaveLayers", layers=layers, **inputs)
    return list(comfy.run(graph.prompt)["outputs"].values())[-1]


def files(comfy, prefix: str) -> list[str]:
    return sorted(path.name for path in (comfy.base / "output").rglob(f"{prefix}*"))


def close(found, wanted, step: int) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=0.51 / step) for a, b in zip(found, wanted, strict=True))


def refusal(comfy, graph) -> str:
    answer = comfy.post("/prompt", {"prompt": graph.prompt})
    if "prompt_id" not in answer:
        return " ".join(error["details"] for node in answer["node_errors"].values() for error in node["errors"])
    entry = comfy.wait(answer["prompt_id"])
    errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert errors and errors[0]["exception_type"].endswith("OmniAlphaError"), entry["status"]
    return errors[0]["exception_message"]


@pytest.mark.parametrize("format", ["psd", "ora"])
def test_layered_file_there_and_back(comfy, graph, stack, format):
    """Saved, seen in the history, downloaded, read by the library, loaded again by the node."""
    layers = load(graph)[0]
    said = save(comfy, graph, layers, filename_prefix=f"two/poster_{format}", format=format, names="Himmel\n树")
    (file,) = said["files"]
    assert file == {"filename": f"poster_{format}_00001_.{format}", "subfolder": "two", "type": "output"}
    with urllib.request.urlopen(f"{comfy.url}/view?{urllib.parse.urlencode(file)}") as answer:
        data = answer.read()
    path = comfy.base / "output/two" / file["filename"]
    assert data == path.read_bytes() and said["images"][0]["type"] == "temp"
    found = read_stack(path)
    assert found.names == ["Himmel", "树"] and close(found.layers, stack.layers, 255)
    assert b'"class_type": "OmniAlphaSaveLayers"' in (data if format == "psd" else _merged_text(data))

    again = type(graph)()
    layers, *_ = again.add("OmniAlphaLoadLayers", file=f"two/{file['filename']} [output]")
    said = save(comfy, again, layers, filename_prefix=f"again_{format}", names="a\nb", numbered=False)
    assert [entry["filename"] for entry in said["images"]] == [f"again_{format}_{name}.png" for name in "ab"]
    read = [read_layer(comfy.base / "output" / entry["filename"]) for entry in said["images"]]
    assert close(read, found.layers, 255)


def _merged_text(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return Image.open(io.BytesIO(archive.read("mergedimage.png"))).text["prompt"].encode()


def test_sixteen_bits_and_the_workflow(comfy, graph, stack):
    """16-bit PNGs keep every step, and carry the graph under the names that ComfyUI's own savers use."""
    graph.add("OmniAlphaSaveLayers", layers=load(graph)[0], filename_prefix="deep", format="png16")
    workflow = {"nodes": [], "title": "ü"}
    answer = comfy.post("/prompt", {"prompt": graph.prompt, "extra_data": {"extra_pnginfo": {"workflow": workflow}}})
    (said,) = comfy.wait(answer["prompt_id"])["outputs"].values()
    paths = [comfy.base / "output" / entry["filename"] for entry in said["images"]]
    assert [path.name for path in paths] == [f"deep_00001_s_{name}.png" for name in stack.names]
    assert close([read_layer(path) for path in paths], stack.layers, 65535)
    for path in paths:
        text = Image.open(path).text
        prompt = json.loads(text["prompt"])
        prompt["1"].pop("is_changed")  # ComfyUI notes what fingerprint it went by
        assert prompt == graph.prompt and json.loads(text["workflow"]) == workflow


def test_a_task_keeps_sixteen_bits(comfy, graph):
    """A 16-bit picture, cut out: where the object is opaque it has the picture's values, all of them."""
    rows, columns = torch.meshgrid(torch.arange(240), torch.arange(320), indexing="ij")
    distance = ((rows - 120).square() + (columns - 160).square()).sqrt()
    disc = distance < 70
    noise = 0.02 * torch.rand(3, 240, 320, generator=torch.Generator().manual_seed(1))
    red = torch.stack([0.6 + rows / 1000, 0.1 + columns / 1600, torch.full((240, 320), 0.1)])
    before = (torch.cat([torch.where(disc, red, 0.5) + noise, torch.ones(1, 240, 320)]) * 65535).round()
    write_stack(Stack([before / 65535], ["deep"]), comfy.base / "input/deep", "png16")
    write_layer(opaque(disc.float().expand(3, -1, -1)), comfy.base / "input/deep_mask.png")
    image = graph.add("OmniAlphaLoadLayers", file="deep_deep.png")[0]
    guide = graph.add("LoadImageMask", image="deep_mask.png", channel="red")[0]
    model, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    common = {"model": model, "clip": clip, "vae": vae, "image": image, "guide": guide, "text": "", "instruction": ""}
    common |= {"seed": 1, "steps": 2, "guidance": 1.0, "sampler": "euler", "fit": "scale"}
    for task in ("matting_mask", "removal_mask"):
        layers = graph.add("OmniAlphaTask", task=task, **common)[0]
        graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix=f"deep_{task}", format="png16", numbered=False)
    comfy.run(graph.prompt)
    cut, without = (
        (read_layer(comfy.base / f"output/deep_{name}.png") * 65535).round()
        for name in ("matting_mask_object", "removal_mask_background")
    )
    for layer, where in ((cut, (cut[3] == 65535) & disc), (without, distance > 110)):
        assert where.float().mean() > 0.1 and torch.equal(layer[:3, where], before[:3, where])
        assert len(layer[:3, where].unique()) > 2 * 256


def test_numbers_go_up_and_nothing_is_overwritten(comfy, graph, stack):
    layers = load(graph)[0]
    for format in ("psd", "png"):
        graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix="count", format=format)
    comfy.run(graph.prompt)
    before = {name: (comfy.base / "output" / name).read_bytes() for name in files(comfy, "count")}
    for node in graph.prompt.values():  # a change, since ComfyUI does not run what it has run
        if node["class_type"] == "OmniAlphaSaveLayers":
            node["inputs"]["names"] = "one, two"
    comfy.run(graph.prompt)
    assert len(before) == 3 and len(files(comfy, "count")) == 6
    assert all((comfy.base / "output" / name).read_bytes() == data for name, data in before.items())

    fixed = type(graph)()
    inputs = {"filename_prefix": "fixed", "format": "ora", "numbered": False}
    said = save(comfy, fixed, load(fixed)[0], **inputs)
    data = (comfy.base / "output" / said["files"][0]["filename"]).read_bytes()
    fixed.add("OmniAlphaSaveLayers", layers=load(fixed)[0], **inputs, names="x\ny")
    assert "fixed.ora already" in refusal(comfy, fixed)
    assert (comfy.base / "output/fixed.ora").read_bytes() == data


OUTSIDE = ["../escape", "/tmp/escape", "a/../../escape", "", "sub/", ".."]


@pytest.mark.parametrize("prefix", OUTSIDE)
def test_saving_stays_in_the_output_folder(comfy, graph, stack, prefix):
    graph.add("OmniAlphaSaveLayers", layers=load(graph)[0], filename_prefix=prefix, format="psd")
    message = refusal(comfy, graph)
    assert "outside ComfyUI's output folder" in message or "names no file" in message
    assert not list(comfy.base.rglob("*escape*"))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "stack/../../secret.png", "../secret.png [output]"])
def test_loading_stays_in_comfyuis_folders(comfy, graph, stack, name):
    write_layer(torch.rand(4, 4, 4), comfy.base / "secret.png")
    graph.add("OmniAlphaPreviewLayers", layers=graph.add("OmniAlphaLoadLayers", file=name)[0])
    assert "outside ComfyUI's" in refusal(comfy, graph)


@pytest.mark.parametrize("folder", ["..", "../models", "/", "stack/../.."])
def test_folders_stay_in_comfyuis_folders(comfy, graph, stack, folder):
    graph.add("OmniAlphaPreviewLayers", layers=load(graph, folder=folder)[0])
    assert "outside ComfyUI's input folder" in refusal(comfy, graph)


def test_folder_one_by_one(comfy, graph, stack):
    """The rest of the graph runs once per file, layered ones included, in the order people count."""
    folder = comfy.base / "input/many"
    folder.mkdir()
    for name, side in (("p10", 5), ("p2", 7), ("q1", 9)):
        write_layer(torch.rand(4, side, 4), folder / f"{name}.png")
    write_stack(stack, folder / "p3", "ora")
    layers, _, names, titles, *_ = load(graph, False, folder="many", pattern="p*", start=1)
    graph.add("PreviewAny", source=titles)
    graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix="many", names=names, numbered=True)
    said = list(comfy.run(graph.prompt)["outputs"].values())
    assert "p3" in json.dumps(said) and "p2" not in json.dumps(said)
    assert files(comfy, "many") == ["many_00001_Himmel.png", "many_00001_树.png", "many_00002_p10.png"]
    nothing = type(graph)()
    nothing.add("OmniAlphaPreviewLayers", layers=load(nothing, folder="many", pattern="x*")[0])
    assert "0 match 'x*'" in refusal(comfy, nothing)


def test_missing_file_is_named(comfy, graph):
    graph.add("OmniAlphaPreviewLayers", layers=graph.add("OmniAlphaLoadLayers", file="gone.psd")[0])
    assert "no file 'gone.psd' in ComfyUI's input folder" in refusal(comfy, graph)


def test_core_nodes_agree_about_alpha(comfy, graph, stack):
    """The table of docs/masks.md: which way round masks go between these nodes and ComfyUI's own."""
    write_layer(stack.layers[1], comfy.base / "input/cut.png")
    true = read_layer(comfy.base / "input/cut.png")
    image, mask, *_ = graph.add("LoadImage", image="cut.png")
    ours = graph.add("OmniAlphaLoadLayers", file="cut.png")[0]
    tidy = {"transparent_to": 0, "opaque_from": 255}
    selects = graph.add("OmniAlphaAlpha", layers=ours, **tidy)[1]
    clears = graph.add("OmniAlphaAlpha", layers=ours, **tidy, mask_polarity="1 = transparent")[1]
    back = load(graph, pattern="*Himmel*")[0]
    photo = graph.add("OmniAlphaCompositeLayers", layers=back, background="white")[0]  # RGB, as the core node wants it
    results = {
        "in": graph.add("OmniAlphaLayer", image=image, mask=mask)[0],
        "joined": graph.add("JoinImageWithAlpha", image=image, alpha=clears)[0],
        "split": graph.add("JoinImageWithAlpha", image=image, alpha=graph.add("SplitImageWithAlpha", image=ours)[1])[0],
        "pasted": graph.add(
            "ImageCompositeMasked", destination=photo, source=ours, mask=selects, x=0, y=0, resize_source=False
        )[0],
        "composite": graph.add("OmniAlphaCompositeLayers", layers=ours, background="transparent", image=back)[0],
    }
    for name, layers in results.items():
        graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix=f"core_{name}", numbered=False)
    comfy.run(graph.prompt)
    found = {name: read_layer(comfy.base / f"output/core_{name}_layer 1.png") for name in results}
    assert all(close([found[name]], [true], 255) for name in ("in", "joined", "split"))
    wanted = flatten([stack.layers[0], true])  # its background is opaque
    assert torch.allclose(found["composite"], wanted, atol=1 / 255)
    assert torch.allclose(found["pasted"], wanted, atol=1.01 / 255)


def test_tools(comfy, graph, stack):
    """Edit, trimap, refine and linear light, as the library has them."""
    from omnialpha.layers.compositing import trimap
    from omnialpha.layers.refining import refine

    layers, _, names, *_ = load(graph)
    swapped, _, new_names, *_ = graph.add("OmniAlphaEditLayers", layers=layers, order="1, 0+1", names=names)
    graph.add("OmniAlphaSaveLayers", layers=swapped, filename_prefix="edit", names=new_names, numbered=False)
    top = graph.add("OmniAlphaEditLayers", layers=layers, order="1")[0]
    _, picture, *_ = graph.add("OmniAlphaTrimap", layers=top, width=2)
    graph.add("OmniAlphaSaveLayers", layers=picture, filename_prefix="tri", numbered=False)
    photo = graph.add("OmniAlphaCompositeLayers", layers=layers, background="white", linear_light=True)[0]
    graph.add("OmniAlphaSaveLayers", layers=photo, filename_prefix="linear", format="png16", numbered=False)
    refined = graph.add("OmniAlphaRefineMatte", image=photo, matte=top, worked_at=16)[0]
    graph.add("OmniAlphaSaveLayers", layers=refined, filename_prefix="refined", numbered=False)
    known = graph.add("OmniAlphaTrimap", layers=top, width=3)[0]
    held = graph.add("OmniAlphaRefineMatte", image=photo, matte=top, trimap=known)[0]
    graph.add("OmniAlphaSaveLayers", layers=held, filename_prefix="held", numbered=False)
    outputs = comfy.run(graph.prompt)["outputs"]
    assert any(image["filename"].startswith("OmniAlpha.trimap") for out in outputs.values() for image in out["images"])
    output = comfy.base / "output"
    names = [path.name for path in sorted(output.glob("edit_*"))]
    assert names == ["edit_s_Himmel + s_树.png", "edit_s_树.png"]
    assert close([read_layer(output / names[1])], [stack.layers[1]], 255)
    assert close([read_layer(output / "tri_layer 1.png")[0]], [trimap(stack.layers[1][3], 2)], 255)
    light = over_colour(flatten(stack.layers, linear_light=True))
    assert close([read_layer(output / "linear_layer 1.png")[:3]], [light], 250)
    photo = read_layer(output / "linear_layer 1.png")[:3]
    wanted = refine(photo, stack.layers[1], (12, 16))
    assert torch.allclose(read_layer(output / "refined_layer 1.png"), wanted, atol=2 / 255)
    wanted = refine(photo, stack.layers[1], trimap=trimap(stack.layers[1][3], 3))
    assert torch.allclose(read_layer(output / "held_layer 1.png"), wanted, atol=2 / 255)
