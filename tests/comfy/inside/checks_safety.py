"""What strangers may write, names in files and values of links, is neither followed nor taken for markup."""

import json
import ntpath
import posixpath
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import torch
from inside import fails, job, micro, nodes, part, picture, run

# Every text that a node takes, and what becomes of it. A new input has to be added here, and judged.
TEXTS = {
    "a name of the node's list": {
        "OmniAlphaLoadCheckpoint.checkpoint",
        "OmniAlphaLoadVAE.vae_name",
        "OmniAlphaPatchModel.layer_axis",
        "OmniAlphaTask.task",
        "OmniAlphaTask.sampler",
        "OmniAlphaTask.fit",
        "OmniAlphaTask.pixels",
        "OmniAlphaTask.look",
        "OmniAlphaWindow.task",
        "OmniAlphaWindow.fit",
        "OmniAlphaKeepPixels.task",
        "OmniAlphaKeepPixels.pixels",
        "OmniAlphaSequence.fit",
        "OmniAlphaCompositeLayers.background",
        "OmniAlphaSaveLayers.format",
        "OmniAlphaLoadLayersFromFolder.source",
        *(f"OmniAlpha{name}.mask_polarity" for name in ("Layer", "Alpha", "Trimap", "RefineMatte")),
    },
    "a path within a folder of ComfyUI's": {
        "OmniAlphaLoadLayers.file",
        "OmniAlphaLoadLayersFromFolder.folder",
        "OmniAlphaSaveLayers.filename_prefix",
    },
    "held against names of files, as in a shell": {"OmniAlphaLoadLayersFromFolder.pattern"},
    "a name of a layer, and a part of a file's name once it is one": {"OmniAlphaSaveLayers.names"},
    "words for the page, which shows them as text": {"OmniAlphaPreviewLayers.names", "OmniAlphaEditLayers.names"},
    "words for the model": {
        "OmniAlphaTask.text",
        "OmniAlphaTask.instruction",
        "OmniAlphaTask.negative",
        "OmniAlphaInstruct.instruction",
        "OmniAlphaInstruct.negative",
    },
    "parsed, with errors in words": {"OmniAlphaEditLayers.order", "OmniAlphaCompositeLayers.colour"},
}
ELSEWHERE = ("../../elsewhere/it", "{outside}/it", "a/../../../elsewhere/it", "\\\\pc\\share\\it", "C:\\it", "it\0")
TAG = "<img src=x onerror=alert(1)>"


def check_every_text_is_judged():
    found = {
        f"{name}.{one.id}"
        for name, node in nodes.items()
        for one in node.define_schema().inputs
        if one.get_io_type() in ("STRING", "COMBO")
    }
    assert found == set().union(*TEXTS.values()), found ^ set().union(*TEXTS.values())


def check_checkpoints_come_from_their_folder():
    models = Path(folder_paths.models_dir)
    outside = models.parent / "elsewhere"
    shutil.copytree(job["micro"], outside / "it")
    for name in (*ELSEWHERE, "micro/../micro", ".", "", "./linked", 5, ["micro"]):
        name = name.format(outside=outside) if isinstance(name, str) else name
        fails(lambda name=name: run("OmniAlphaLoadCheckpoint", name), "no checkpoint folder", "offers")
    (models / "omnialpha/linked").symlink_to(outside / "it", target_is_directory=True)
    model, *_ = run("OmniAlphaLoadCheckpoint", "linked")
    assert model.model is not None, "a link that the artist has made is followed"
    (models / "omnialpha/linked").unlink()
    shutil.rmtree(outside)


def check_vaes_come_from_their_folders():
    models = Path(folder_paths.models_dir)
    outside = models.parent / "elsewhere"
    outside.mkdir()
    shutil.copy(next((Path(job["micro"]) / "vae").glob("*.safetensors")), outside / "it")
    for name in (*ELSEWHERE, "omnialpha/../../elsewhere/it", 5):
        name = name.format(outside=outside) if isinstance(name, str) else name
        fails(lambda name=name: run("OmniAlphaLoadVAE", name, False), "no VAE file", "offers")
    shutil.rmtree(outside)


def check_values_that_no_list_offers():
    mask, image = torch.ones(1, 64, 64), picture(1)
    model, clip, vae = micro()
    (sequence,) = run("OmniAlphaSequence", 1, 0, 0, "scale", {"layer0": image})
    for call in (
        lambda: run("OmniAlphaPatchModel", model, True, TAG),
        lambda: run("OmniAlphaPatchModel", model, True, [TAG]),
        lambda: run("OmniAlphaCompositeLayers", picture(1, channels=4), TAG),
        lambda: run("OmniAlphaLayer", image, mask, TAG),
        lambda: run("OmniAlphaAlpha", picture(1, channels=4), 0, 255, True, TAG),
        lambda: run("OmniAlphaTrimap", None, mask, TAG),
        lambda: run("OmniAlphaRefineMatte", image, None, mask, TAG),
        lambda: run("OmniAlphaSequence", 1, 64, 64, TAG),
        lambda: run("OmniAlphaLoadLayersFromFolder", "models", "", "*", True),
        lambda: run("OmniAlphaSaveLayers", image, "name", TAG),
        lambda: run("OmniAlphaTask", model, clip, vae, TAG, "", "", 0, 1, 1.0, "euler", "scale", image=image),
        lambda: run("OmniAlphaTask", model, clip, vae, "matting_auto", "", "", 0, 1, 1.0, TAG, "scale", image=image),
        *(
            lambda given=given: run(
                "OmniAlphaTask", model, clip, vae, "matting_auto", "", "", 0, 1, 1.0, "euler", "scale", image, **given
            )
            for given in ({"pixels": TAG}, {"look": TAG})
        ),
        lambda: run("OmniAlphaWindow", vae, "text_to_rgba", image),
        lambda: run("OmniAlphaWindow", vae, "matting_mask", image, mask, fit=TAG),
        lambda: run("OmniAlphaKeepPixels", vae, TAG, image, image, sequence),
        lambda: run("OmniAlphaKeepPixels", vae, "matting_auto", image, image, sequence, pixels=TAG),
    ):
        fails(call)


def check_paths_stay_in_their_folder():
    confined = part("nodes.adapters.input_files").confined
    assert confined("a/../b.png", "/base/input", posixpath) == Path("/base/input/b.png")
    for name in ("..", "../x", "/x", "a/../../x", "../input-2/x", "//x", "x\0"):
        fails(lambda name=name: confined(name, "/base/input", posixpath), "outside ComfyUI's input folder")
    base = "C:\\ComfyUI\\input"
    assert str(confined("a/b.png", base, ntpath)) == f"{base}\\a\\b.png"
    for name in (
        "..\\x",
        "../x",
        "\\x",
        "/x",
        "D:x",
        "D:\\x",
        "C:\\x",
        "\\\\machine\\share\\x",
        "//machine/share/x",
        "\\\\?\\C:\\x",
        "\\\\.\\pipe\\x",
        "a\\..\\..\\x",
    ):
        fails(lambda name=name: confined(name, base, ntpath), "outside ComfyUI's input folder")


def check_saving_stays_in_the_output_folder():
    output = Path(folder_paths.get_output_directory())
    before = {path for path in output.parent.rglob("*") if path.is_file()}
    for prefix in ("../x", "/x", "a/../../x", "..", "", "sub/", "x\0", TAG, "sub<b>/x"):
        fails(lambda prefix=prefix: run("OmniAlphaSaveLayers", picture(1), prefix))
    assert {path for path in output.parent.rglob("*") if path.is_file()} == before
    paths, *_ = run("OmniAlphaSaveLayers", picture(1), "judged", "png", f"../{TAG}/C:\\x")
    assert [Path(path).parent for path in paths] == [output] and not set('<>:\\"|?*') & set(Path(paths[0]).name)


def check_lists_hold_no_markup():
    """Classic nodes of older frontends show a list's entries as HTML."""
    places, folders, models = (
        *map(part, ("nodes.adapters.input_files", "nodes.adapters.model_folders")),
        folder_paths.models_dir,
    )
    name = "<img src=x onerror=alert(1)>"
    file = Path(folder_paths.get_input_directory()) / f"{name}.png"
    file.write_bytes(b"")
    config = Path(models) / "omnialpha" / name / "transformer/config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    vae = Path(models) / "vae" / f"{name}.safetensors"
    vae.write_bytes(b"")
    for names in (places.input_files(), folders.checkpoint_names(), folders.vae_names()):
        assert not [one for one in names if "<" in one], names
    for path in (file, vae):
        path.unlink()
    shutil.rmtree(Path(models) / "omnialpha" / name)


def check_notes_hold_no_markup():
    note, said = part("nodes.adapters.note"), []
    server = SimpleNamespace(send_progress_text=lambda text, node: said.append(text))
    real = sys.modules.get("server")
    sys.modules["server"] = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    try:
        note.show_note("1", f"'{TAG}' & '&lt;b&gt;'\n'[[Update|https://x]]' \x1b[31m \u202egnp")
    finally:
        sys.modules.pop("server")
        if real is not None:
            sys.modules["server"] = real
    assert said == ["'‹img src=x onerror=alert(1)›' & '＆lt;b＆gt;'\n'[[Update¦https://x]]'  [31m  gnp"], said


def check_code_in_a_checkpoint_folder_is_refused():
    """Where standard input would answer "y"."""
    import builtins

    folder = Path(folder_paths.models_dir) / "omnialpha/hostile"
    shutil.copytree(job["micro"], folder)
    settings = folder / "tokenizer/tokenizer_config.json"
    ran, asked = folder / "ran", []
    (folder / "tokenizer/extra.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom transformers import PreTrainedTokenizerFast\n"
        f"class Extra(PreTrainedTokenizerFast): pass\n"
    )
    hostile = {"auto_map": {"AutoTokenizer": ["extra.Extra", "extra.Extra"]}, "tokenizer_class": "Extra"}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **hostile}))
    real, builtins.input = builtins.input, lambda words="": asked.append(words) or "y"
    try:
        fails(lambda: run("OmniAlphaLoadCheckpoint", "hostile"), "tokenizer_config.json", "asks to run code")
        read = part("nodes.adapters.text_encoder").read_vocabulary
        fails(lambda: read(folder / "tokenizer"), "asks to run code")
    finally:
        builtins.input = real
    assert not asked and not ran.exists()
    shutil.rmtree(folder)
