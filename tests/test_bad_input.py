"""Whatever a user can do wrong ends in one clear sentence and exit code 2: no traceback, no half-written picture."""

from __future__ import annotations

import io
import json
import pickle
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from omnialpha.checkpoint.settings import Settings
from omnialpha.checkpoint.weights import find_checkpoint
from omnialpha.cli.main import main
from omnialpha.errors import OmniAlphaError
from omnialpha.files.pictures import read_layer
from omnialpha.files.results import new_folder
from omnialpha.request import Request

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
ENCODER = "text_encoder/model.safetensors"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of micro to damage."""
    return shutil.copytree(find_checkpoint("micro"), tmp_path / "checkpoint")


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs the command line and expects a refusal that holds some words; nothing may be left in the output folder."""

    def check(*words_and_args, says=(), out=tmp_path / "out"):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            code = main(["run", *map(str, words_and_args), "--out", str(out), "--steps", "1"])
        shown = capsys.readouterr()
        assert code == 2, shown
        assert shown.out == "" and "Traceback" not in shown.err
        for words in says:
            assert words in shown.err, shown.err
        assert not out.exists() or not any(out.iterdir())
        return shown.err

    return check


def no_loading(monkeypatch):
    """From here on loading any weights is a failure: the check has to come before it."""
    for name in ("load_transformer", "load_text_encoder", "load_vae", "load_tokenizer"):
        monkeypatch.setattr(f"omnialpha.pipeline.{name}", lambda *a, **k: pytest.fail("weights were loaded"))


# ---- the request ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args, says",
    [
        (["nonsense"], ["Unknown task 'nonsense'", "matting_auto"]),
        ([], ["Say what to do"]),
        (["matting_auto"], ["takes one picture", "0 were given"]),
        (["text_to_rgba", "--text", "   "], ["needs text"]),
        (["text_to_rgba", "--text", "a cup", "--image", "PHOTO"], ["no picture, only text"]),
        (["matting_trimap", "--image", "PHOTO"], ["needs a guide"]),
        (["matting_auto", "--image", "PHOTO", "--guide", "PHOTO"], ["takes no guide", "matting_trimap"]),
        (["matting_auto", "--image", "PHOTO", "--image", "PHOTO", "--image", "PHOTO"], ["3 were given"]),
        (["matting_auto", "--image", "PHOTO", "--seed", "-1"], ["seed is -1"]),
        (["matting_auto", "--image", "PHOTO", "--seed", str(2**64)], ["2**64 - 1"]),
        (["matting_auto", "--image", "PHOTO", "--guidance", "nan"], ["guidance is nan"]),
        (["matting_auto", "--image", "PHOTO", "--targets", "2"], ["gives 1 layers, 2 were asked for"]),
        (["--instruction", "Go.", "--targets", "0"], ["num_targets is 0"]),
        (["matting_auto", "--image", "PHOTO", "--fit", "exact"], ["56x40", "multiples of 16"]),
        (["matting_auto", "--image", "PHOTO", "--size", "100000x100000"], ["too many"]),
        (["matting_text", "--image", "PHOTO", "--text", "<|image_pad|>"], ["stands for a picture"]),
        (["matting_auto", "--image", "PHOTO", "--device", "tpu9"], ["no device 'tpu9'"]),
        (["matting_auto", "--image", "nowhere.png"], ["nowhere.png"]),
        (["matting_auto", "--image", "PHOTO", "--checkpoint", "nowhere"], ["No checkpoint at nowhere"]),
    ],
)
def test_requests_that_cannot_be_run(refused, photo, monkeypatch, args, says):
    no_loading(monkeypatch)
    refused(*[photo if word == "PHOTO" else word for word in args], says=says)


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_one(photo, tmp_path, capsys, steps):
    out = tmp_path / "out"
    assert main(["run", "matting_auto", "--image", str(photo), "--steps", str(steps), "--out", str(out)]) == 2
    assert f"steps is {steps}" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("words", [["--size", "12"], ["--size", "0x8"], ["--seed", "x"], ["--fit", "zoom"]])
def test_words_that_argparse_refuses(photo, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "matting_auto", "--image", str(photo), *words])
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err


def test_a_guide_of_another_size_names_both(refused, photo, tmp_path, monkeypatch):
    no_loading(monkeypatch)
    Image.new("L", (30, 20)).save(tmp_path / "guide.png")
    refused("matting_mask", "--image", photo, "--guide", tmp_path / "guide.png", says=["30x20", "56x40"])


def test_nan_in_a_layer_or_guide():
    good, bad = torch.ones(4, 32, 32), torch.full((4, 32, 32), float("nan"))
    with pytest.raises(OmniAlphaError, match="Picture 1 holds NaN"):
        Request(task="matting_auto", images=[bad]).plan(Settings())
    with pytest.raises(OmniAlphaError, match="guide holds NaN"):
        Request(task="matting_mask", images=[good], guide=bad[0]).plan(Settings())
    with pytest.raises(OmniAlphaError, match="Picture 1 is a list"):
        Request(task="matting_auto", images=[[1, 2]]).plan(Settings())


@pytest.mark.parametrize("options", [{"steps": 2.5}, {"steps": "two"}, {"seed": True}, {"seed": 1.0}])
def test_numbers_of_the_wrong_kind(options):
    with pytest.raises(OmniAlphaError, match="expected a whole number"):
        Request(task="text_to_rgba", text="a cup", **options).plan(Settings())


# ---- pictures ------------------------------------------------------------------------------------------------------


def picture_of(kind: str) -> bytes:
    ramp = np.arange(48 * 32, dtype=np.uint16).reshape(32, 48) * 40
    small = Image.fromarray((ramp >> 8).astype(np.uint8))
    file, options = io.BytesIO(), {"format": "PNG"}
    if kind == "animation":
        options = {"format": "GIF", "save_all": True, "append_images": [small.rotate(90)] * 3}
    elif kind == "CMYK":
        options = {"format": "JPEG"}
    image = {
        "1x1": lambda: Image.new("RGB", (1, 1), (9, 99, 199)),
        "sliver": lambda: Image.new("RGB", (300, 1), (9, 99, 199)),
        "grey": lambda: small,
        "palette": lambda: small.convert("P"),
        "16-bit": lambda: Image.fromarray(ramp),
        "CMYK": lambda: small.convert("CMYK"),
        "animation": lambda: small,
        "bilevel": lambda: small.convert("1"),
        "grey with alpha": lambda: small.convert("LA"),
    }[kind]()
    image.save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind", ["1x1", "sliver", "grey", "palette", "16-bit", "CMYK", "animation", "bilevel", "grey with alpha"]
)
def test_odd_pictures_are_converted(tmp_path, kind):
    path = tmp_path / "odd"
    path.write_bytes(picture_of(kind))
    assert main(["run", "matting_auto", "--image", str(path), "--steps", "1", "--out", str(tmp_path / "out")]) == 0
    assert read_layer(tmp_path / "out" / "01-object.png").shape == read_layer(path).shape


@pytest.mark.parametrize("damage", ["cut off", "noise", "empty", "text"])
def test_damaged_pictures_are_refused(refused, photo, tmp_path, monkeypatch, damage):
    no_loading(monkeypatch)
    data = photo.read_bytes()
    bad = {"cut off": data[: len(data) // 2], "noise": bytes(range(256)) * 9, "empty": b"", "text": b"Hello!"}[damage]
    path = tmp_path / "bad.png"
    path.write_bytes(bad)
    refused("matting_auto", "--image", path, says=["bad.png"])


def test_a_48_megapixel_picture_is_fitted(tmp_path):
    """Without a model, whose work does not depend on the picture's size."""
    big = Image.new("RGB", (8000, 6000), (9, 99, 199))
    plan = Request(task="matting_auto", images=[big]).plan(Settings(pixel_budget=16384, size_multiple=16))
    assert plan.frame.apply(plan.sequence.layers[0]).shape == (4, 80, 112) and plan.frame.size == (80, 112)
    assert plan.frame.source == (6000, 8000)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def damage(folder, part: str, how: str) -> None:
    path = folder / part
    data = path.read_bytes()
    if how == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickle":
        path.write_bytes(pickle.dumps({}))
    elif how == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    elif how == "missing":
        path.unlink()
    elif how == "only a pickle":
        path.unlink()
        path.with_suffix(".bin").write_bytes(pickle.dumps({}))


@pytest.mark.parametrize("part", [TRANSFORMER, VAE, ENCODER])
@pytest.mark.parametrize(
    "how, says",
    [
        ("cut off", "cut off"),
        ("empty", "is empty"),
        ("pickle", "is a pickle"),
        ("noise", "not"),
        ("missing", "holds no .safetensors file"),
        ("only a pickle", "is a pickle"),
    ],
)
def test_damaged_weights(refused, photo, checkpoint, part, how, says):
    damage(checkpoint, part, how)
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=[says, part.split("/")[0]])


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "file, changes, says",
    [
        ("transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "a FluxTransformer2DModel, expected"),
        ("transformer/config.json", {"in_channels": 16}, "not a Qwen-Image transformer"),
        ("transformer/config.json", {"num_layers": 7}, "transformer_blocks.6"),
        ("transformer/config.json", {"attention_head_dim": 16}, "not what its config.json describes"),
        ("transformer/config.json", {"num_layers": "many"}, "cannot be used"),
        ("transformer/config.json", {"zero_cond_t": True}, "Qwen-Image-Edit-2511"),
        ("transformer/config.json", {"use_layer3d_rope": True}, "Qwen-Image-Layered"),
        ("text_encoder/config.json", {"model_type": "llama"}, "expected a 'qwen2_5_vl'"),
        ("omnialpha.json", {"size_multiple": 7}, "multiple of 16"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "scheduler"),
    ],
)
def test_wrong_architecture_is_found_before_loading(refused, photo, checkpoint, monkeypatch, file, changes, says):
    no_loading(monkeypatch)
    edit(checkpoint / file, **changes)
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=[says])


def test_parts_of_different_checkpoints(refused, photo, checkpoint, monkeypatch):
    no_loading(monkeypatch)
    path = checkpoint / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["hidden_size"] = 3584
    path.write_text(json.dumps(config))
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=["3584", "128", "belong"])


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_folders_with_parts_missing(refused, photo, checkpoint, monkeypatch, part):
    no_loading(monkeypatch)
    shutil.rmtree(checkpoint / part)
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=["not a complete checkpoint", part])


def test_a_text_encoder_that_lacks_weights(refused, photo, checkpoint):
    tensors = load_file(checkpoint / ENCODER)
    gone = next(key for key in tensors if key.endswith("layers.1.mlp.down_proj.weight"))
    save_file({key: value for key, value in tensors.items() if key != gone}, checkpoint / ENCODER, {"format": "pt"})
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=["lacks 1 tensors"])


def test_a_damaged_tokenizer(refused, photo, checkpoint):
    (checkpoint / "tokenizer" / "tokenizer.json").write_text("{")
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=["tokenizer"])


def test_files_in_each_others_place(refused, photo, checkpoint):
    refused("matting_auto", "--image", photo, "--vae", checkpoint / TRANSFORMER, says=["VAE"])
    refused("matting_auto", "--image", photo, "--lora", checkpoint / VAE, says=["is not a LoRA"])
    refused("matting_auto", "--image", photo, "--lora", photo, says=["not a safetensors file"])
    refused("matting_auto", "--image", photo, "--vae", photo.with_name("none"), says=["none"])
    refused("matting_auto", "--image", photo, "--checkpoint", photo, says=["is a file"])


def test_a_lora_for_another_model_is_found_before_loading(refused, photo, tmp_path, monkeypatch):
    no_loading(monkeypatch)
    module = "transformer.transformer_blocks.0.attn.to_q"
    path = tmp_path / "lora.safetensors"
    save_file({f"{module}.lora_A.weight": torch.ones(4, 3072), f"{module}.lora_B.weight": torch.ones(3072, 4)}, path)
    refused(
        "matting_auto", "--image", photo, "--lora", path, says=["none of its 1 layers", "(3072, 3072)", "(128, 128)"]
    )


@pytest.mark.parametrize("part", [TRANSFORMER, VAE, ENCODER])
def test_nan_weights_give_no_black_picture(refused, photo, checkpoint, part):
    tensors = load_file(checkpoint / part)
    poisoned = {key: torch.full_like(value, float("nan")) if value.ndim else value for key, value in tensors.items()}
    save_file(poisoned, checkpoint / part, {"format": "pt"})
    refused("matting_auto", "--image", photo, "--checkpoint", checkpoint, says=["NaN"])


# ---- output --------------------------------------------------------------------------------------------------------


def test_output_below_a_file(refused, photo, monkeypatch):
    no_loading(monkeypatch)
    refused("matting_auto", "--image", photo, says=["Cannot write to"], out=photo / "out")


def test_output_that_is_a_file(refused, photo, tmp_path, monkeypatch):
    no_loading(monkeypatch)
    (tmp_path / "taken").write_text("x")
    code = main(["run", "matting_auto", "--image", str(photo), "--out", str(tmp_path / "taken")])
    assert code == 2 and (tmp_path / "taken").read_text() == "x"


def test_output_where_nothing_can_be_made(refused, photo, monkeypatch):
    no_loading(monkeypatch)
    from pathlib import Path

    refused("matting_auto", "--image", photo, says=["Cannot write to"], out=Path("/proc/omnialpha/out"))


@contextmanager
def small_disk(size: int):
    """Within it files above `size` bytes cannot be written, as on a full disk.

    Not a fixture: pytest reports a test before it tears fixtures down, and its report may go to a file as well.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_once(refused, photo, monkeypatch):
    no_loading(monkeypatch)
    with small_disk(1000):
        refused("matting_auto", "--image", photo, says=["Cannot write to"])


def test_a_disk_that_fills_up_leaves_no_half_picture(refused, photo, tmp_path):
    large = tmp_path / "large.png"
    Image.open(photo).resize((448, 320)).save(large)
    with small_disk(4096):  # enough for the trial before the work, too little for the picture
        refused("matting_auto", "--image", large, says=["Could not write"])
    assert not list(tmp_path.rglob("*.tmp"))


def test_convert_vae_refuses(tmp_path, checkpoint, capsys):
    source, target = checkpoint / VAE, tmp_path / "new.safetensors"
    cases = [
        ([checkpoint / TRANSFORMER, target, "--layout", "wan"], "not a Qwen-Image VAE"),
        ([source, target], "Nothing to do"),
        ([source, target, "--opaque"], "RGBA VAE already"),
        ([source, tmp_path / "new.pt", "--layout", "wan"], "only format written"),
        ([source, tmp_path / "no" / "new.safetensors", "--layout", "wan"], "no folder"),
        ([tmp_path / "none", target, "--layout", "wan"], "none"),
    ]
    for args, says in cases:
        assert main(["convert-vae", *map(str, args)]) == 2
        assert says in capsys.readouterr().err
    with small_disk(4096):
        assert main(["convert-vae", str(source), str(target), "--layout", "wan"]) == 2
    assert "Could not write" in capsys.readouterr().err
    assert not target.exists() and not list(tmp_path.glob(".*"))


def test_a_failed_run_leaves_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        raise RuntimeError
    assert folder == tmp_path / "out"
    with pytest.raises(RuntimeError), new_folder(tmp_path / "deep" / "er") as folder:
        (folder / "kept").write_text("x")
        raise RuntimeError
    assert (tmp_path / "deep" / "er" / "kept").exists()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "other" / "deep"):
        raise RuntimeError
    assert not (tmp_path / "other").exists()
