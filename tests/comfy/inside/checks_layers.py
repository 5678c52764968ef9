"""IMAGE and MASK on the way in and out: polarity, stand-ins, sizes, sequences, files."""

import json
import sys
from types import SimpleNamespace

import torch
from comfy_api.v0_0_2 import io
from inside import fails, imported, micro, nodes, pack_name, part, picture, run, worst
from PIL import Image


def check_mask_polarity():
    image, mask = picture(1), torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    (layer,) = run("OmniAlphaLayer", image, mask)
    assert bool((layer[..., :32, 3] == 1).all()) and bool((layer[..., 32:, 3] == 0).all())
    assert bool((layer[..., 32:, :3] == 0).all()), "hidden colours are black"
    (layer,) = run("OmniAlphaLayer", image, mask, "1 = opaque", clean_hidden=False)
    assert bool((layer[..., :32, 3] == 0).all()) and torch.equal(layer[..., :3], image)


def check_loadimages_stand_in_counts_as_no_mask():
    (layer,) = run("OmniAlphaLayer", picture(1, 80, 96), torch.zeros(1, 64, 64))
    assert layer.shape == (1, 80, 96, 4) and bool((layer[..., 3] == 1).all())


def check_masks_of_another_size_are_named():
    fails(lambda: run("OmniAlphaLayer", picture(1), torch.ones(1, 32, 48)), "48x32", "64x64")
    fails(lambda: run("OmniAlphaLayer", picture(1), torch.ones(3, 64, 64)), "3 masks for 1 pictures")
    fails(lambda: run("OmniAlphaLayer", torch.zeros(1, 8, 8, 2)), "[1, 8, 8, 2]")
    fails(lambda: run("OmniAlphaLayer", torch.full((1, 8, 8, 3), float("nan"))), "NaN")


def check_grey_and_batches():
    (layer,) = run("OmniAlphaLayer", torch.rand(2, 8, 8, 1))
    assert layer.shape == (2, 8, 8, 4) and torch.equal(layer[..., 0], layer[..., 2])


def check_sequences():
    batch = torch.cat([picture(1), picture(2)])
    (sequence,) = run(
        "OmniAlphaSequence", 2, 0, 0, "pad", layers={"layer0": batch, "layer1": picture(3, 32, 48), "layer2": None}
    )
    assert [tuple(layer.shape) for layer in sequence.layers] == [(4, 64, 64), (4, 64, 64), (4, 32, 48)]
    assert (sequence.targets, sequence.size, sequence.fit) == (2, None, "pad")
    (alone,) = run("OmniAlphaSequence", 1, 96, 64, "scale")
    assert alone.layers == [] and alone.size == (64, 96)
    fails(lambda: run("OmniAlphaSequence", 1, 0, 0, "scale", layers={}), "No layer is connected", "layer0")
    fails(lambda: run("OmniAlphaSequence", 1, 64, 0, "scale"), "width is 64 and height 0")
    assert (
        nodes["OmniAlphaSequence"].validate_inputs(0, 32) == "width is 0 and height 32: set both, or leave both at 0."
    )
    assert nodes["OmniAlphaSequence"].validate_inputs(None, 32) is True


def check_decode_restores_the_frame():
    _, _, vae = micro()
    (sequence,) = run("OmniAlphaSequence", 1, 0, 0, "pad", layers={"layer0": picture(1, 40, 72)})
    latent = {"samples": torch.zeros(1, 16, 1, *(side // 8 for side in sequence.fitted(16384, 16).size))}
    layers, _ = run("OmniAlphaDecodeLayers", vae, latent, sequence)
    assert layers.shape == (1, 40, 72, 4)
    raw, _ = run("OmniAlphaDecodeLayers", vae, latent, sequence, restore_frame=False)
    assert raw.shape[1:3] == tuple(8 * side for side in latent["samples"].shape[-2:])
    odd = {"samples": torch.zeros(1, 16, 1, 4, 4)}
    fails(lambda: run("OmniAlphaDecodeLayers", vae, odd, sequence), "32x32", "restore_frame")
    (two,) = run("OmniAlphaSequence", 2, 0, 0, "pad", layers={"layer0": picture(1)})
    fails(lambda: run("OmniAlphaDecodeLayers", vae, odd, two), "1 layers", "asks for 2")


def check_decode_restores_the_frame_without_stated_settings():
    """A VAE from a loader of its own carries no settings: the latent itself tells the working size."""
    decode, images = part("nodes.decode_layers"), picture(1, 40, 72)
    (sequence,) = run("OmniAlphaSequence", 1, 0, 0, "pad", layers={"layer0": images})
    vae = SimpleNamespace(patcher=SimpleNamespace(get_attachment=lambda key: None))
    frame = decode._frame(vae, torch.zeros(1, 16, 1, 12, 20), sequence)
    assert (frame.source, frame.size, frame.mode) == ((40, 72), (96, 160), "pad")


def check_snap_alpha():
    _, _, vae = micro()
    latent = {"samples": torch.zeros(1, 16, 1, 4, 4)}
    snapped, _ = run("OmniAlphaDecodeLayers", vae, latent, snap_alpha=True)
    alpha = (snapped[..., 3] * 255).round()
    assert not bool((((alpha > 0) & (alpha <= 5)) | ((alpha >= 250) & (alpha < 255))).any())


def check_composites():
    back, front = torch.zeros(1, 8, 8, 4), torch.zeros(1, 8, 8, 4)
    back[..., 0], back[..., 3] = 1, 1
    front[:, :4, :, 1], front[:, :4, :, 3] = 1, 1
    layers = torch.cat([back, front])
    (flat,) = run("OmniAlphaCompositeLayers", layers, "transparent")
    assert flat.shape == (1, 8, 8, 4)
    assert flat[0, 0, 0].tolist() == [0, 1, 0, 1] and flat[0, 7, 0].tolist() == [1, 0, 0, 1]
    (white,) = run("OmniAlphaCompositeLayers", front, "white")
    assert white.shape[-1] == 3 and white[0, 7, 7].tolist() == [1, 1, 1]
    (teal,) = run("OmniAlphaCompositeLayers", front, "colour", "#008080")
    assert worst(teal[0, 7, 7], torch.tensor([0, 128, 128]) / 255) < 1e-6
    (board,) = run("OmniAlphaCompositeLayers", front, "checkerboard")
    assert board.shape[-1] == 3
    fails(lambda: run("OmniAlphaCompositeLayers", front, "colour", "bluish"), "bluish", "#rrggbb")


def check_names_travel_with_their_layers():
    """From a task or a file to whoever shows, edits or saves them; another node's tensor has none."""
    images = part("nodes.adapters.images")
    layers = images.to_layers(picture(1, channels=4)) + images.to_layers(picture(2, channels=4))
    tagged = images.to_image(layers, ["background", "object"])
    swapped, _, names = run("OmniAlphaEditLayers", tagged, "1, 0", "")
    assert names == "object\nbackground" and images.names_of(swapped) == ("object", "background")
    assert run("OmniAlphaEditLayers", tagged, "0, 0", "")[2] == "background\nbackground 2"
    assert run("OmniAlphaEditLayers", tagged, "", "sky, tree")[2] == "sky\ntree", "what is written comes first"
    assert images.names_of(tagged * 1) is None and run("OmniAlphaEditLayers", tagged * 1, "", "")[2] == (
        "background\nlayer 1"
    )


def check_saved_files_carry_the_graph():
    import folder_paths

    save, hidden = (
        part("nodes.adapters.output_pictures").save_layers,
        SimpleNamespace(prompt={"1": 2}, extra_pnginfo={"workflow": {"x": 1}}),
    )
    layer = part("nodes.adapters.images").to_layers(picture(1, channels=4))[0]
    first = save([layer, 1 - layer], "sub/layers", io.FolderType.output, hidden)
    second = save([layer], "sub/layers", io.FolderType.output, hidden)
    assert [file["filename"] for file in first] == ["layers_00001_layer0.png", "layers_00001_layer1.png"]
    assert second[0]["filename"] == "layers_00002_layer0.png" and second[0]["subfolder"] == "sub"
    with Image.open(f"{folder_paths.get_output_directory()}/sub/{first[0]['filename']}") as image:
        assert image.mode == "RGBA" and json.loads(image.text["prompt"]) == {"1": 2}
        assert json.loads(image.text["workflow"]) == {"x": 1}
    preview = save([layer], "OmniAlpha.preview", io.FolderType.temp, hidden)
    assert preview[0]["type"] == "temp"


def check_task_inputs_are_judged_before_they_run():
    validate = nodes["OmniAlphaTask"].validate_inputs
    assert "Did you mean 'matting_auto'" in validate("matting_aut")
    assert "needs a picture" in validate("matting_auto")
    assert "needs a guide" in validate("removal_mask", image=None)
    assert "needs text" in validate("text_to_rgba", text="  ")
    assert validate("text_to_rgba", text=None) is True, "a connected text is known later"
    assert validate("text_to_rgba", text="", instruction="Draw a cat.") is True
    assert validate("removal_mask", image=None, guide=None) is True
    assert validate(None) is True


def check_task_inputs_are_judged_when_they_arrive():
    model, clip, vae = micro()

    def task(name, **inputs):
        text = inputs.pop("text", "")
        return run("OmniAlphaTask", model, clip, vae, name, text, "", 0, 1, 1.0, "euler", "scale", **inputs)

    fails(lambda: task("matting_auto", image=torch.cat([picture(1), picture(2)])), "batch of 2", "Rebatch Images")
    fails(lambda: task("matting_mask", image=picture(1), guide=torch.ones(1, 32, 32)), "32x32", "64x64")
    empty = fails(
        lambda: task("matting_mask", image=picture(1, 80, 80), guide=torch.zeros(1, 64, 64)), "64x64", "80x80"
    )
    assert "LoadImage" in empty
    fails(lambda: task("matting_mask", image=picture(1), guide=torch.ones(2, 64, 64)), "2 masks")
    fails(lambda: task("matting_auto", image=picture(1), width=64), "height 0")
    fails(lambda: task("text_to_rgba", text=" "), "needs text")
    layers, mask, composite = task("text_to_layers", text="a balloon", image=picture(1), width=64, height=48)
    assert layers.shape == (2, 48, 64, 4) and mask.shape == (2, 48, 64) and composite.shape == (1, 48, 64, 4)


def check_untrained_tasks_say_so_on_the_node():
    """The public checkpoint was trained on five tasks; the others run with a visible note."""
    notes, task = [], part("nodes.task")
    settings = part("nodes.adapters.settings").settings_of()
    server = SimpleNamespace(send_progress_text=lambda text, node: notes.append((node, text)))
    sys.modules["server"], real = (
        SimpleNamespace(PromptServer=SimpleNamespace(instance=server)),
        sys.modules.get("server"),
    )
    try:
        for name in ("matting_auto", "removal_auto"):
            task._plan(settings, picture(1), None, "7", task=name)
    finally:
        sys.modules.pop("server")
        if real is not None:
            sys.modules["server"] = real
    assert len(notes) == 1 and notes[0][0] == "7" and "not trained on 'removal_auto'" in notes[0][1], notes


def check_import_stays_light():
    """Importing the pack loads its own files and nothing that ComfyUI had not loaded already."""
    foreign = {name.split(".")[0] for name in imported if not name.startswith(pack_name())}
    assert foreign <= {*sys.stdlib_module_names, "comfyui_version"}, sorted(foreign)
    return {"modules": len(imported)}
