"""Make the workflows that code describes: those for the public checkpoint, quick start, two stages, fine edges, and the
one that goes step by step.

    make templates

Writes workflows/*.json for the rows below; the other workflows there are laid out by hand. `make workflows` exports all
of them to API format afterwards. Standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from public_workflows import LORA, PUBLIC, TEXT_ENCODER, VAE, Public, models, public_note
from workflow_builder import Board, Wire

from omnialpha.tasks import TASKS

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"


def public(row: Public) -> dict:
    """A workflow for the public checkpoint: loaders, task, layers."""
    board = Board()
    board.note(public_note(row), (520, 760))
    left, y, wide = 580, 60, 360
    gguf = row.transformer.endswith(".gguf")
    loader = "UnetLoaderGGUF" if gguf else "UNETLoader"
    # ComfyUI downloads no .gguf, and would show an error for it in place of an offer.
    said = {"cnr_id": "ComfyUI-GGUF"} if gguf else models(row.transformer)
    model = board.add(loader, "Qwen-Image-Edit-2509", (left, y), (wide, 90), said, unet_name=row.transformer)["MODEL"]
    for name in (LORA, *row.extra_loras):
        y += 140
        title = "OmniAlpha LoRA" if name == LORA else "Experimental: 8 steps"
        model = board.add(
            "LoraLoaderModelOnly", title, (left, y), (wide, 90), models(name), model=model, lora_name=name
        )["MODEL"]
    clip = board.add(
        "CLIPLoader",
        "Qwen2.5-VL",
        (left, y + 140),
        (wide, 110),
        models(TEXT_ENCODER),
        clip_name=TEXT_ENCODER,
        device=row.encoder_device,
    )["CLIP"]
    vae = board.add("OmniAlphaLoadVAE", "OmniAlpha RGBA VAE", (left, y + 300), (wide, 90), models(VAE), vae_name=VAE)
    board.group("Model", left - 20, -20, left + wide + 20, y + 410)
    inputs: dict[str, Wire] = {}
    y += 500
    top = y - 80
    if row.picture:
        inputs["image"] = load_picture(board, (left, y), row.picture, wide)
        y += 410
    if row.guide:
        inputs["guide"] = load_mask(board, (left, y), row.guide, wide)
        y += 410
    if inputs:
        board.group("Picture and mask" if row.guide else "Picture", left - 20, top, left + wide + 20, y)
    layers = task(board, (1020, 60), row.task_title, model, clip, vae["VAE"], row.task, **inputs, **row.given)
    show_and_save(board, 1500, layers, row.result, row.task.rsplit("_", 1)[0])
    return board.workflow(f"omnialpha_public_{row.name}")


def load_picture(board: Board, at: tuple[int, int], name: str, wide: int = 320) -> Wire:
    """LoadImage with an example picture."""
    return board.add("LoadImage", "Your picture", at, (wide, 360), image=name)["IMAGE"]


def load_mask(board: Board, at: tuple[int, int], name: str, wide: int = 320) -> Wire:
    """A guide, white where the object is."""
    return board.add("LoadImageMask", "Where the object is (white)", at, (wide, 360), image=name)["MASK"]


def task(board: Board, at, title: str, model: Wire, clip: Wire, vae: Wire, task_id: str, **given) -> Wire:
    """The task node in its frame; its layers."""
    node = board.add(
        "OmniAlphaTask", title, at, (400, 660), model=model, clip=clip, vae=vae, task=task_id, **{"seed": 1, **given}
    )
    board.group("Task", at[0] - 20, -20, at[0] + 420, 740)
    return node["layers"]


def show_and_save(board: Board, left: int, layers: Wire, title: str, prefix: str) -> None:
    """Preview and saver in their frame."""
    board.add("OmniAlphaPreviewLayers", title, (left, 60), (420, 420), layers=layers)
    board.add(
        "OmniAlphaSaveLayers",
        "Save as PNG, one per layer",
        (left, 540),
        (420, 380),
        layers=layers,
        filename_prefix=f"OmniAlpha/{prefix}",
    )
    board.group("Layers", left - 20, -20, left + 440, 940)


MISSING = (
    "### Missing picture?\nThe examples lie in the pack's folder `workflows/inputs`. Copy them into ComfyUI's `input` "
    "folder once, or choose pictures of your own."
)
MICRO = (
    "### micro\nThe small model that comes with the pack: nothing to download, seconds on a laptop; it works at about "
    "100 pixels. It shows how things connect. For real work see the workflows *omnialpha_public_...*."
)


def on_micro(board: Board, title: str, task_id: str, picture: str, mask: str = "", **asked) -> tuple[Wire, Wire]:
    """micro, example pictures, and a task on them; (picture, layers)."""
    loaded = board.add("OmniAlphaLoadCheckpoint", "Load micro", (460, 60), (320, 110), checkpoint="micro")
    board.group("Model", 440, -20, 800, 190)
    image = load_picture(board, (460, 290), picture)
    guide = {"guide": load_mask(board, (460, 700), mask)} if mask else {}
    board.group("Picture and mask" if mask else "Picture", 440, 210, 800, 1080 if mask else 670)
    models = (loaded[name] for name in ("MODEL", "CLIP", "VAE"))
    return image, task(board, (860, 60), title, *models, task_id, image=image, **guide, **asked)


def quick_start() -> dict:
    """The least that shows what the pack does."""
    board = Board()
    board.note(
        "# Quick start\nPress *Run*. The picture comes apart into two layers: **the background, with what the object "
        "hid painted in, and the object on transparency**.\n\nThen:\n1. choose a picture of your own in **Your "
        "picture**\n2. choose another **task**: 21 of them, to cut out, remove, take apart, complete and draw\n3. look "
        "at the other workflows of this pack under *Browse Templates*\n\n" + MISSING + "\n\n" + MICRO,
        (400, 560),
    )
    _, layers = on_micro(board, "Take the picture apart", "decomposition_auto", "omnialpha_lotus.png")
    show_and_save(board, 1340, layers, "Background and object", "quick_start")
    return board.workflow("omnialpha_quick_start")


def two_stage() -> dict:
    """Take a picture apart, work on one layer alone, put it together again."""
    board = Board()
    board.note(
        "# Two stages: take apart, edit, put together\n1. The picture comes apart into background and object.\n2. "
        "**Only the background** is edited: here it is blurred, as if the camera had focused on the object. Put any "
        "node in that place: colours, filters, another model.\n3. The object, untouched, goes back on top, and the "
        "stack is laid together.\n\nThe background was painted complete, so nothing of the object smears into the "
        "blur: that is what a blur through a mask cannot do.\n\n*Get Image from Batch* takes single layers: 0 is the "
        "background, 1 the object.\n\n" + MISSING + "\n\n" + MICRO,
        (400, 520),
    )
    _, layers = on_micro(board, "Take the picture apart", "decomposition_auto", "omnialpha_frog.png")
    background = board.add("ImageFromBatch", "The background", (1340, 60), (320, 110), image=layers)["IMAGE"]
    blurred = board.add(
        "ImageBlur", "Edit it: here, a blur", (1340, 220), (320, 110), image=background, blur_radius=4, sigma=2.0
    )["IMAGE"]
    thing = board.add("ImageFromBatch", "The object", (1340, 380), (320, 110), image=layers, batch_index=1)["IMAGE"]
    stack = board.add(
        "BatchImagesNode",
        "Stack: background, object",
        (1340, 540),
        (320, 110),
        images__image0=blurred,
        images__image1=thing,
    )["IMAGE"]
    board.group("Edit one layer", 1320, -20, 1680, 670)
    flat = board.add("OmniAlphaCompositeLayers", "Lay over each other", (1740, 60), (320, 110), layers=stack)["image"]
    board.add("PreviewImage", "The finished picture", (1740, 220), (320, 330), images=flat)
    board.add(
        "OmniAlphaSaveLayers",
        "Save the layers",
        (1740, 600),
        (320, 330),
        layers=stack,
        filename_prefix="OmniAlpha/two_stage",
    )
    board.group("Put together, and save", 1720, -20, 2080, 950)
    return board.workflow("omnialpha_two_stage")


def fine_edges() -> dict:
    """A cut-out whose edges follow the picture's."""
    board = Board()
    board.note(
        "# Fine edges\n*OmniAlpha Task* makes fine edges by itself: **pixels** = keep. These are the same steps in the "
        "open, for mattes from elsewhere and for edges that you want to help.\n1. The model cuts out what the rough "
        "mask marks. **pixels** = redraw leaves its layers alone: their edges are as soft as the size it works at.\n2. "
        "*OmniAlpha Trimap* says where that cut-out is sure: white is object, black is background, grey is "
        "**to be found out**. Raise its **width** until the grey covers all that is wrong at the edge.\n3. "
        "*OmniAlpha Refine Matte* keeps to what is sure, follows the picture's own edges in the grey, and takes "
        "the old background's colour out of them.\n\nIf you have painted a trimap for a task by trimap, connect "
        "that one to **trimap**.\n\n" + MISSING + "\n\n" + MICRO,
        (400, 740),
    )
    image, layers = on_micro(
        board, "Cut out", "matting_coarse_mask", "omnialpha_gift.png", "omnialpha_gift_mask.png", pixels="redraw"
    )
    known = board.add("OmniAlphaTrimap", "What is sure", (1340, 60), (320, 380), layers=layers, width=3)
    refined = board.add(
        "OmniAlphaRefineMatte",
        "Follow the picture's edges",
        (1340, 520),
        (320, 200),
        image=image,
        matte=layers,
        trimap=known["trimap (1 = object)"],
    )["layer"]
    board.group("Refine", 1320, -20, 1680, 760)
    board.add("OmniAlphaPreviewLayers", "As the model drew it", (1740, 60), (420, 420), layers=layers)
    board.group("Before", 1720, -20, 2180, 520)
    show_and_save(board, 2220, refined, "Refined", "refined")
    return board.workflow("omnialpha_fine_edges")


def step_by_step() -> dict:
    """What the task node does, in single nodes around ComfyUI's own sampler."""
    task_id = "decomposition_coarse_mask"
    board = Board()
    board.note(
        "# Decomposition, step by step\nSplits a picture into **background and object**, laid out as single steps. "
        f"*OmniAlpha Task* does all of this in one node (task `{task_id}`), and with the same seed gives the same "
        "layers, bit for bit; open it up like this when you want another sampler, more layers, or your own words.\n\n"
        "**Model** - *Patch Model* teaches the model to tell layers apart. LoRAs go in front of it.\n\n**Window** - "
        "the model sees the object larger when it is shown a window round it, cut out of picture and mask alike.\n\n"
        "**Sequence** - which layers go in, in which order, and how many come out: **targets** = 2, the background "
        "first.\n\n**Instruct** - the words. This is the task's own wording; change it freely.\n\n**Sample** - "
        "ComfyUI's own sampling nodes. Only the noise levels come from *OmniAlpha Sigmas*: they depend on how many "
        "layers are drawn. Steps 0 = what the checkpoint asks for.\n\n**Decode** - one layer at a time, back to the "
        "size of the window.\n\n**Keep Pixels** - your picture's own pixels wherever the layers show what it shows, at "
        "its full size; the model's for what was hidden.\n\n" + MISSING + "\n\n" + MICRO,
        (420, 780),
    )
    model, clip, vae = board.add(
        "OmniAlphaLoadCheckpoint", "Load micro", (480, 60), (320, 110), checkpoint="micro"
    ).values()
    patched = board.add("OmniAlphaPatchModel", "Patch Model", (480, 230), (320, 110), model=model)["MODEL"]
    board.group("Model", 460, -20, 820, 360)
    image = load_picture(board, (480, 460), "omnialpha_gift.png")
    mask = load_mask(board, (480, 870), "omnialpha_gift_mask.png")
    board.group("Picture and mask", 460, 380, 820, 1250)

    cut, marked, window = board.add(
        "OmniAlphaWindow",
        "Window round the object",
        (880, 60),
        (340, 260),
        vae=vae,
        task=task_id,
        image=image,
        guide=mask,
    ).values()
    seen = board.add("MaskToImage", "The mask as a layer", (880, 390), (340, 60), mask=marked)["IMAGE"]
    layers = {"layers__layer0": cut, "layers__layer1": seen}
    sequence = board.add(
        "OmniAlphaSequence", "Sequence: picture and mask in, 2 layers out", (880, 520), (340, 220), **layers, targets=2
    )["sequence"]
    told = {"instruction": TASKS[task_id].instruction, "negative": ""}
    positive, negative, latent = board.add(
        "OmniAlphaInstruct", "Instruct", (880, 810), (340, 300), clip=clip, vae=vae, sequence=sequence, **told
    ).values()
    board.group("What goes in, what comes out", 860, -20, 1240, 1130)

    noise = board.add("RandomNoise", "Noise", (1300, 60), (320, 90), noise_seed=1)["NOISE"]
    sampler = board.add("KSamplerSelect", "Sampler", (1300, 220), (320, 70))["SAMPLER"]
    levels = board.add("OmniAlphaSigmas", "Noise levels", (1300, 360), (320, 180), latent=latent, model=model)["SIGMAS"]
    pair = {"positive": positive, "negative": negative}
    guider = board.add("CFGGuider", "Guidance (1 = none)", (1300, 610), (320, 110), model=patched, **pair, cfg=1)[
        "GUIDER"
    ]
    sampled = board.add(
        "SamplerCustomAdvanced",
        "Sample",
        (1660, 60),
        (260, 130),
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=levels,
        latent_image=latent,
    )["output"]
    board.group("Sample, with ComfyUI's own nodes", 1280, -20, 1940, 740)

    decoded = board.add(
        "OmniAlphaDecodeLayers", "Decode Layers", (2000, 60), (320, 200), vae=vae, latent=sampled, sequence=sequence
    )["layers"]
    given = {"vae": vae, "task": task_id, "image": image, "layers": decoded, "sequence": sequence, "window": window}
    kept = board.add("OmniAlphaKeepPixels", "Keep the picture's pixels", (2000, 340), (320, 240), **given)
    board.group("Decode and keep", 1980, -20, 2340, 600)
    board.add("PreviewImage", "Should equal your picture", (2000, 700), (320, 330), images=kept["composite"])
    board.group("Check", 1980, 620, 2340, 1050)
    show_and_save(board, 2400, kept["layers"], "Background and object", "decomposition")
    return board.workflow("omnialpha_decomposition_step_by_step")


def made() -> dict[str, dict]:
    """Every workflow of this file by its name."""
    rows = {f"omnialpha_public_{row.name}": public(row) for row in PUBLIC}
    micro = {"quick_start": quick_start, "two_stage": two_stage, "fine_edges": fine_edges}
    micro |= {"decomposition_step_by_step": step_by_step}
    return {f"omnialpha_{name}": make() for name, make in micro.items()} | rows


def text_of(workflow: dict) -> str:
    """A workflow as it lies in its file."""
    return json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write them all; return the exit status."""
    for name, workflow in made().items():
        (WORKFLOWS / f"{name}.json").write_text(text_of(workflow), encoding="utf-8")
        print(f"workflows/{name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
