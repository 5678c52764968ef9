"""The command line as its user meets it, on the built-in checkpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from omnialpha.checkpoint.weights import find_checkpoint
from omnialpha.cli.main import build_parser, main
from omnialpha.files.pictures import read_layer, to_uint8
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = torch.randint(0, 256, (40, 56, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(path)
    return path


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "mask.png"
    image = Image.new("L", (56, 40))
    image.paste(255, (10, 10, 40, 30))
    image.save(path)
    return path


def run(*words) -> int:
    return main([str(word) for word in words])


def python(*words, **options):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def test_layers_are_written_back_to_front_with_their_settings(photo, mask, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    words = ["run", "decomposition_mask", "--image", photo, "--guide", mask, "--seed", 5, "--steps", 2, "--out", out]
    assert run(*words) == 0
    names = ["01-background.png", "02-object.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert capsys.readouterr().out.split() == [str(out / name) for name in names]

    expected = OmniAlphaPipeline.from_pretrained("micro")(
        "decomposition_mask", images=[photo], guide=mask, seed=5, steps=2
    )
    for index, (name, layer) in enumerate(zip(names, expected)):
        with Image.open(out / name) as image:
            assert image.mode == "RGBA" and image.size == (56, 40)
            said = json.loads(image.text["omnialpha"])
        assert said["task"] == "decomposition_mask" and said["seed"] == 5 and said["steps"] == 2
        assert (said["pixels"], said["look"]) == ("keep", "close")
        assert said["images"] == ["photo.png"] and said["guide"] == "mask.png"  # names only, no places
        assert (said["layer"], said["index"], said["layers"]) == (name[3:-4], index, 2)
        assert torch.equal(to_uint8(read_layer(out / name)), to_uint8(layer))


def test_nothing_is_overwritten(photo, tmp_path):
    for _ in range(3):
        assert run("run", "matting_auto", "--image", photo, "--steps", 1, "--out", tmp_path / "out") == 0
    assert all(list((tmp_path / name).iterdir()) for name in ("out", "out-2", "out-3"))


def test_free_instruction(photo, tmp_path):
    words = ["run", "--instruction", "Swap them.", "--image", photo, "--image", photo, "--targets", 2, "--steps", 1]
    assert run(*words, "--size", "48x32", "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["01-background.png", "02-layer 1.png"]


def test_guide_polarity_reaches_the_model(photo, mask, tmp_path):
    inverted = tmp_path / "inverted.png"
    Image.open(mask).point(lambda value: 255 - value).save(inverted)
    for guide, polarity, out in ((mask, "white", "a"), (inverted, "black", "b")):
        words = ["--image", photo, "--guide", guide, "--guide-polarity", polarity, "--steps", 1]
        assert run("run", "matting_mask", *words, "--out", tmp_path / out) == 0
    a, b = (read_layer(tmp_path / name / "01-object.png") for name in "ab")
    torch.testing.assert_close(a, b, atol=1.1 / 255, rtol=0)


def test_an_untrained_task_is_noted(photo, tmp_path, capsys):
    folder = shutil.copytree(find_checkpoint("micro"), tmp_path / "some")
    data = json.loads((folder / "omnialpha.json").read_text()) | {"tasks": ["removal_auto"]}
    (folder / "omnialpha.json").write_text(json.dumps(data))
    words = ["--image", photo, "--steps", 1, "--checkpoint", folder, "--out", tmp_path / "out"]
    assert run("run", "matting_auto", *words) == 0
    assert "note: This checkpoint was not trained on 'matting_auto'" in capsys.readouterr().err


def test_tasks_table(capsys):
    assert run("tasks") == 0
    shown = capsys.readouterr().out
    assert all(f"  {task} " in shown for task in TASKS)
    assert run("tasks", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == list(TASKS)
    assert run("tasks", "--checkpoint", "micro", "--json") == 0
    assert all(row["trained"] is True for row in json.loads(capsys.readouterr().out))


def test_tasks_and_help_import_nothing_heavy():
    code = """if True:
        import sys
        from omnialpha.cli.main import main

        main(["tasks"])
        assert not {"torch", "numpy", "PIL", "diffusers", "transformers"} & set(sys.modules)
    """
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_module_runs_and_exit_code_is_2():
    done = python("-m", "omnialpha", "run", "matting_atuo")
    assert done.returncode == 2 and "Did you mean 'matting_auto'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], ["run"], ["tasks"], ["inspect"], ["convert-vae"], ["demo"]])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*command, "--help"])
    assert stop.value.code == 0 and len(capsys.readouterr().out) > 300


def report(capsys, *words) -> dict:
    assert run("inspect", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_inspect_checkpoint(capsys):
    found = report(capsys, "micro")
    assert found["kind"] == "checkpoint" and not found["problems"]
    assert {name: part["kind"] for name, part in found["parts"].items()} == {
        "transformer": "Qwen-Image transformer",
        "vae": "RGBA VAE",
        "text_encoder": "Qwen2.5-VL text encoder",
    }
    assert run("inspect", "micro") == 0
    assert "Complete" in capsys.readouterr().out


def test_inspect_says_what_is_wrong_with_a_checkpoint(tmp_path, capsys):
    folder = shutil.copytree(find_checkpoint("micro"), tmp_path / "some")
    shutil.rmtree(folder / "tokenizer")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    (folder / "text_encoder" / "model.safetensors").unlink()
    found = " ".join(report(capsys, folder)["problems"])
    for words in ("tokenizer.json", "cut off", "text_encoder/ weights"):
        assert words in found


def test_inspect_vae_files(tmp_path, capsys):
    wan = tmp_path / "wan.safetensors"
    micro = find_checkpoint("micro") / "vae"
    assert run("convert-vae", micro, wan, "--layout", "wan") == 0
    capsys.readouterr()
    found = report(capsys, wan)
    assert found["kind"] == "RGBA VAE" and found["facts"]["key layout"] == "wan" and not found["problems"]
    tensors = load_file(wan)
    tensors.pop("decoder.middle.0.residual.0.gamma")
    save_file(tensors, wan)
    assert "is missing" in report(capsys, wan)["problems"][0]


def test_inspect_lora(tmp_path, capsys):
    lora = tmp_path / "lora.safetensors"
    module = "base_model.model.transformer_blocks.3.attn.to_q"
    tensors = {f"{module}.lora_A.weight": torch.ones(4, 128), f"{module}.lora_B.weight": torch.ones(128, 4)}
    save_file(tensors, lora)
    found = report(capsys, lora, "--checkpoint", "micro")
    assert found["kind"] == "LoRA" and found["facts"]["key style"] == "PEFT" and found["facts"]["rank"] == [4]
    assert found["facts"]["fits micro"] == "1 of 1 layers" and "silently" in found["hints"][0]
    assert report(capsys, lora)["facts"]["names"].startswith("1 of 1")
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8})}
    save_file(tensors, lora, metadata)
    found = report(capsys, lora)
    assert found["facts"]["strength by metadata"] == [2] and "strength_model" in found["hints"][-1]


def test_inspect_other_things(tmp_path, capsys):
    assert report(capsys, find_checkpoint("micro") / "text_encoder")["facts"]["vision tower"] == "yes"
    save_file({"anything": torch.ones(1)}, tmp_path / "x.safetensors")
    assert report(capsys, tmp_path / "x.safetensors")["kind"] == "not a model of this family"
    assert run("inspect", tmp_path / "nothing") == 2


def test_convert_vae_there_and_back_is_exact(tmp_path, capsys):
    source = find_checkpoint("micro") / "vae" / "diffusion_pytorch_model.safetensors"
    there, back = tmp_path / "wan.safetensors", tmp_path / "back.safetensors"
    assert run("convert-vae", source, there, "--layout", "wan") == 0
    assert run("convert-vae", there, back, "--layout", "diffusers") == 0
    ours, theirs = load_file(source), load_file(back)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert run("convert-vae", source, there, "--layout", "wan") == 2
    assert "not overwritten" in capsys.readouterr().err


def test_convert_vae_opaque(tmp_path, capsys):
    rgba = load_file(find_checkpoint("micro") / "vae" / "diffusion_pytorch_model.safetensors")
    for key in ("encoder.conv_in.weight", "decoder.conv_out.weight", "decoder.conv_out.bias"):
        rgba[key] = (rgba[key][:, :3] if "conv_in" in key else rgba[key][:3]).contiguous()
    save_file(rgba, tmp_path / "rgb.safetensors")
    assert report(capsys, tmp_path / "rgb.safetensors")["kind"] == "RGB VAE"
    assert run("convert-vae", tmp_path / "rgb.safetensors", tmp_path / "new.safetensors", "--opaque") == 0
    assert "4 channels in, 4 out, diffusers layout" in capsys.readouterr().out
    assert report(capsys, tmp_path / "new.safetensors")["kind"] == "RGBA VAE"


def test_ctrl_c_and_bugs_show_no_traceback(photo, tmp_path, monkeypatch, capsys):
    for error, code, words in (
        (KeyboardInterrupt(), 130, "Stopped"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("omnialpha.pipeline.OmniAlphaPipeline.run", fail)
        assert run("run", "matting_auto", "--image", photo, "--out", tmp_path / "out") == code
        shown = capsys.readouterr().err
        assert words in shown and "Traceback" not in shown
        assert not (tmp_path / "out").exists()
