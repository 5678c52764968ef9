"""The pipeline on micro's shapes. Its weights are shaken so that every input shows in the output, trained or not."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from omnialpha import json_files
from omnialpha.checkpoint.folder import Checkpoint
from omnialpha.checkpoint.settings import PUBLIC, Settings
from omnialpha.checkpoint.weights import find_checkpoint
from omnialpha.cli.inspect import inspect
from omnialpha.errors import Cancelled, OmniAlphaError, OmniAlphaWarning
from omnialpha.files.pictures import as_plane
from omnialpha.model.text import encode_prompt
from omnialpha.model.vae import decode_layers, encode_layers
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.request import Request
from omnialpha.tasks import TASKS, get_task

SIZE = (32, 48)
# What the model itself gives; tests/test_pipeline_pixels.py is about what is made of that.
SMALL = {"size": SIZE, "steps": 2, "guidance": 1.0, "pixels": "redraw"}


def shake(pipeline: OmniAlphaPipeline) -> OmniAlphaPipeline:
    """Random transformer weights of a size at which nothing is lost in rounding."""
    generator = torch.Generator().manual_seed(1)
    for parameter in pipeline.transformer.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 1 + 0.1 * noise)
    return pipeline


@pytest.fixture(scope="module")
def pipeline():
    with torch.no_grad():
        return shake(OmniAlphaPipeline.from_pretrained("micro"))


@pytest.fixture
def picture():
    return torch.rand(4, *SIZE, generator=torch.Generator().manual_seed(2))


def request_for(task_id: str, picture: torch.Tensor) -> dict:
    task = get_task(task_id)
    return {
        "images": [picture] if task.image_role else [],
        "guide": (picture[3] > 0.5).float() if task.guide_role else None,
        "text": "" if task.text == "none" else "a red balloon",
    }


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs(pipeline, picture, task):
    layers = pipeline(task, **request_for(task, picture), **SMALL | {"steps": 1})
    assert len(layers) == len(TASKS[task].targets)
    for layer in layers:
        assert layer.shape == (4, *SIZE) and layer.dtype == torch.float32
        assert torch.isfinite(layer).all() and layer.min() >= 0 and layer.max() <= 1


def test_what_goes_in_comes_out_different(pipeline, picture):
    """Seed, text, image, guide, steps, guidance and negative prompt each reach the model."""
    base = {"task": "matting_mask", **request_for("matting_mask", picture), **SMALL, "guidance": 3.0}
    first = pipeline(**base)[0]
    assert torch.equal(first, pipeline(**base)[0])
    for change in (
        {"seed": 1},
        {"instruction": "Something else."},
        {"images": [1 - picture]},
        {"guide": 1 - base["guide"]},
        {"steps": 3},
        {"guidance": 5.0},
        {"negative": "blue"},
    ):
        assert (pipeline(**base | change)[0] - first).abs().max() > 1e-4, change


@torch.no_grad()
def test_layers_equal_diffusers_own_parts(pipeline):
    """Stock packing, positions, scheduler and guidance give the same layer (4 x 6 patches: stock positions do)."""
    from diffusers import QwenImageEditPlusPipeline as Stock
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift

    steps, scale, (h, w) = 3, 3.0, (8, 12)
    picture = torch.rand(4, 8 * h, 8 * w, generator=torch.Generator().manual_seed(3))
    options = {
        "images": [picture],
        "steps": steps,
        "guidance": scale,
        "seed": 9,
        "size": (8 * h, 8 * w),
        "clean": False,
        "pixels": "redraw",
    }
    (found,) = pipeline("matting_auto", **options)

    prompts = [Request(task="matting_auto", **options).plan(pipeline.settings).instruction, ""]
    contexts = [encode_prompt(pipeline.text_encoder, pipeline.tokenizer, prompt, [picture]) for prompt in prompts]
    noise = torch.randn(1, 1, 16, h, w, generator=torch.Generator().manual_seed(9))
    x, reference = (
        Stock._pack_latents(latent, 1, 16, h, w) for latent in (noise, encode_layers(pipeline.vae, [picture])[0])
    )
    scheduler = pipeline.scheduler
    mu = calculate_shift(x.shape[1], 256, 8192, 0.5, 0.9)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    transformer = copy.deepcopy(pipeline.transformer)
    transformer.pos_embed = QwenEmbedRope(theta=10000, axes_dim=[8, 12, 12], scale_rope=True)
    for t in scheduler.timesteps:
        cond, uncond = (
            transformer(
                hidden_states=torch.cat([x, reference], dim=1),
                timestep=t.expand(1) / 1000,
                encoder_hidden_states=context,
                img_shapes=[[(1, h // 2, w // 2)] * 2],
                return_dict=False,
            )[0][:, : x.shape[1]]
            for context in contexts
        )
        combined = uncond + scale * (cond - uncond)
        combined = combined * (cond.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True))
        x = scheduler.step(combined, t, x, return_dict=False)[0]
    (expected,) = decode_layers(pipeline.vae, Stock._unpack_latents(x, 8 * h, 8 * w, 8)[0].transpose(0, 1))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_no_guidance_skips_the_second_pass(pipeline, picture, monkeypatch):
    calls = []
    forward = pipeline.transformer.forward
    monkeypatch.setattr(pipeline.transformer, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    for guidance, expected in ((1.0, 2), (0.0, 2), (2.0, 4)):
        calls.clear()
        pipeline("matting_auto", images=[picture], **SMALL | {"guidance": guidance})
        assert len(calls) == expected


def test_defaults_come_from_the_settings(pipeline):
    settings = replace(pipeline.settings, steps=7, guidance=2.5, sampling={})
    plan = Request(task="text_to_rgba", text="a cup").plan(settings)
    assert (plan.steps, plan.guidance) == (7, 2.5)
    wording = Settings(instructions={"matting_text": "Find {text}!"})
    image = torch.ones(4, 64, 64)
    asked = Request(task="matting_text", text="a cup", images=[image])
    assert asked.plan(wording).instruction == "Find a cup!"
    assert replace(asked, instruction="Mine: {text}").plan(wording).instruction == "Mine: a cup"
    with pytest.raises(OmniAlphaError, match="needs text"):
        Request(task="matting_text", images=[image]).plan(wording)


def test_layers_come_back_in_the_frame_that_went_in(pipeline):
    image = torch.rand(4, 37, 61)
    for fit in ("scale", "pad"):
        (layer,) = pipeline("matting_auto", images=[image], steps=1, fit=fit)
        assert layer.shape == image.shape
    with pytest.raises(OmniAlphaError, match="exact"):
        pipeline("matting_auto", images=[image], steps=1, fit="exact")


def test_free_instruction_with_any_layers(pipeline, picture):
    layers = pipeline(instruction="Mix them.", images=[picture, picture[:3]], num_targets=3, **SMALL)
    assert len(layers) == 3
    assert not torch.equal(layers[0], layers[1])


def test_pictures_of_any_kind(pipeline, picture, tmp_path):
    path = tmp_path / "p.png"
    Image.new("RGB", SIZE[::-1], (200, 30, 30)).save(path)
    expected = pipeline("matting_auto", images=[path], **SMALL)[0]
    for same in (str(path), Image.open(path), torch.tensor([200, 30, 30]).view(3, 1, 1).expand(3, *SIZE) / 255):
        torch.testing.assert_close(pipeline("matting_auto", images=same, **SMALL)[0], expected)


def test_callback_sees_previews_and_can_stop(pipeline, picture):
    seen = []

    def watch(step, steps, preview):
        (layer,) = preview()
        seen.append((step, steps, tuple(layer.shape)))
        return step < 2

    with pytest.raises(Cancelled, match="step 2 of 3"):
        pipeline("matting_auto", images=[picture], callback=watch, **SMALL | {"steps": 3})
    assert seen == [(1, 3, (4, *SIZE)), (2, 3, (4, *SIZE))]


def test_the_last_preview_is_the_result(pipeline, picture):
    previews = []
    result = pipeline(
        "decomposition_auto", images=[picture], callback=lambda i, n, preview: previews.append(preview()), **SMALL
    )
    for preview, layer in zip(previews[-1], result):
        torch.testing.assert_close(preview, layer, atol=1e-5, rtol=0)


def test_hidden_colours_of_inputs_do_not_matter_unless_kept(pipeline, picture):
    picture[3, :16] = 0
    other = picture.clone()
    other[:3, :16] = 1 - other[:3, :16]
    run = {"task": "fg_to_bg", **SMALL}
    assert torch.equal(pipeline(images=[picture], **run)[0], pipeline(images=[other], **run)[0])
    kept = [pipeline(images=[image], clean=False, **run)[0] for image in (picture, other)]
    assert not torch.equal(*kept)


def test_snapping(pipeline, picture):
    alpha = pipeline("matting_auto", images=[picture], snap=True, **SMALL)[0][3]
    steps = (alpha * 255).round()
    assert not ((steps > 0) & (steps <= 5) | (steps >= 250) & (steps < 255)).any()


def test_save_and_load_give_identical_layers(pipeline, picture, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    again = OmniAlphaPipeline.from_pretrained(tmp_path / "saved")
    assert again.settings == pipeline.settings
    for task in ("decomposition_mask", "text_to_rgba"):
        ours, theirs = (p(task, **request_for(task, picture), **SMALL) for p in (pipeline, again))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_saved_parts_load_through_diffusers_and_transformers(pipeline, tmp_path):
    import diffusers
    import transformers

    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    libraries = {"diffusers": diffusers, "transformers": transformers}
    parts = {name: value for name, value in index.items() if not name.startswith("_")}
    assert set(parts) == {"transformer", "vae", "text_encoder", "tokenizer", "scheduler"}
    for name, (library, class_name) in parts.items():
        part = getattr(libraries[library], class_name).from_pretrained(tmp_path / name)
        if name == "vae":
            assert part.encoder.conv_in.in_channels == 4


@pytest.fixture
def public(tmp_path):
    """A folder laid out like Qwen-Image-Edit-2509 (RGB VAE, no omnialpha.json, sharded) on micro's shapes."""
    folder = tmp_path / "Qwen-Image-Edit-2509"
    shutil.copytree(find_checkpoint("micro"), folder)
    (folder / "omnialpha.json").unlink()
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    rgba = load_file(vae)
    shutil.copytree(folder / "vae", tmp_path / "rgba_vae")
    rgb = dict(rgba)
    for key in ("encoder.conv_in.weight", "decoder.conv_out.weight", "decoder.conv_out.bias"):
        rgb[key] = (rgba[key][:, :3] if "conv_in" in key else rgba[key][:3]).contiguous()
    save_file(rgb, vae)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = load_file(path)
    halves = {"a.safetensors": list(whole)[::2], "b.safetensors": list(whole)[1::2]}
    for name, keys in halves.items():
        save_file({key: whole[key] for key in keys}, folder / "transformer" / name)
    path.unlink()
    index = {"weight_map": {key: name for name, keys in halves.items() for key in keys}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    module = "transformer.transformer_blocks.0.attn.to_q"
    lora = tmp_path / "pytorch_lora_weights.safetensors"
    save_file({f"{module}.lora_A.weight": torch.ones(4, 128), f"{module}.lora_B.weight": torch.ones(128, 4)}, lora)
    return folder, tmp_path / "rgba_vae", lora


def test_the_public_checkpoints_three_places(public, picture):
    folder, vae, lora = public
    with pytest.raises(OmniAlphaError, match="convert-vae"):
        OmniAlphaPipeline.from_pretrained(folder)
    plain = OmniAlphaPipeline.from_pretrained(folder, vae=vae / "diffusion_pytorch_model.safetensors")
    assert plain.settings.trained("removal_mask") is None
    loaded = OmniAlphaPipeline.from_pretrained(folder, vae=vae, lora=lora)
    assert loaded.settings.tasks == PUBLIC
    added = (p.transformer.transformer_blocks[0].attn.to_q.weight for p in (loaded, plain))
    torch.testing.assert_close(next(added) - next(added), torch.full((128, 128), 4.0))
    with pytest.warns(OmniAlphaWarning, match="not trained on 'matting_trimap'"):
        Request(task="matting_trimap", **request_for("matting_trimap", picture)).plan(loaded.settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (layer,) = loaded("matting_auto", images=[picture], **SMALL)
    assert layer.shape == picture.shape


def test_the_same_folder_means_the_same(public, tmp_path, monkeypatch):
    """The authors' rgba_vae and lora inside the checkpoint, or in their own folder given as both, are found by all."""
    folder, vae, lora = public
    authors = tmp_path / "OmniAlpha"
    shutil.copytree(vae, authors / "rgba_vae")
    (authors / "lora").mkdir()
    shutil.copy(lora, authors / "lora/pytorch_lora_weights.safetensors")
    whole = shutil.copytree(folder, tmp_path / "whole")
    shutil.copytree(authors, whole, dirs_exist_ok=True)

    found = [Checkpoint(folder, vae=vae, lora=lora), Checkpoint(folder, vae=authors, lora=authors), Checkpoint(whole)]
    opened = []
    reader = SimpleNamespace(loads=lambda text: opened.append(text) or json.loads(text))
    monkeypatch.setattr(json_files, "json", reader)
    pipelines = [OmniAlphaPipeline.from_pretrained(one) for one in found]
    assert sum("FlowMatchEuler" in text for text in opened) == len(found), "a scheduler's config is read once"
    for pipeline in pipelines[1:]:
        assert pipeline.settings == pipelines[0].settings and pipeline.settings.tasks == PUBLIC
        for part in ("transformer", "vae"):
            ours, theirs = (getattr(one, part).state_dict() for one in (pipeline, pipelines[0]))
            assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert [one.record()["vae"] for one in found] == ["rgba_vae"] * 3

    report = inspect(whole)
    assert not report["problems"] and report["parts"]["vae"]["kind"] == "RGBA VAE"
    assert report["parts"]["lora"]["facts"]["fits whole"] == "1 of 1 layers"
    assert inspect(authors)["parts"].keys() == {"vae", "lora"}
    with pytest.raises(OmniAlphaError, match="as --vae and --lora"):
        OmniAlphaPipeline.from_pretrained(authors)
    next((whole / "lora").iterdir()).unlink()
    with pytest.raises(OmniAlphaError, match=r"Missing: lora/ weights"):
        Checkpoint(whole).check()


def test_half_a_lora_is_reported_loudly(public):
    folder, vae, lora = public
    stray = {"text_encoder.q.lora_A.weight": torch.zeros(4, 8), "text_encoder.q.lora_B.weight": torch.zeros(8, 4)}
    save_file(load_file(lora) | stray, lora)
    with pytest.warns(OmniAlphaWarning, match="text_encoder.q"):
        OmniAlphaPipeline.from_pretrained(folder, vae=vae, lora=lora)


def test_bfloat16_weights_compute_in_bfloat16(public, picture):
    folder, vae, _ = public
    for name in ("a.safetensors", "b.safetensors"):
        path = folder / "transformer" / name
        save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)
    pipeline = OmniAlphaPipeline.from_pretrained(folder, vae=vae)
    assert pipeline.transformer.dtype == pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.vae.dtype == torch.float32
    (layer,) = pipeline("matting_auto", images=[picture], **SMALL)
    assert layer.dtype == torch.float32
    assert OmniAlphaPipeline.from_pretrained(folder, vae=vae, dtype=torch.float32).transformer.dtype == torch.float32


def test_offloaded_parts_are_woken(pipeline, picture):
    """Model offloading as diffusers installs it, with the CPU as the place to compute."""
    accelerate = pytest.importorskip("accelerate")
    expected = pipeline("decomposition_auto", images=[picture], **SMALL)
    parts, woken = [pipeline.text_encoder, pipeline.transformer, pipeline.vae], []

    def watch(hook):
        wake = hook.pre_forward
        hook.pre_forward = lambda module, *args, **options: woken.append(module) or wake(module, *args, **options)

    try:
        for part in parts:
            watch(accelerate.cpu_offload_with_hook(part, "cpu")[1].hook)
        found = pipeline("decomposition_auto", images=[picture], **SMALL)
    finally:
        for part in parts:
            accelerate.hooks.remove_hook_from_module(part)
    assert {id(part) for part in parts} == {id(part) for part in woken}
    assert all(torch.equal(a, b) for a, b in zip(expected, found))


def test_guide_polarities(tmp_path):
    path = tmp_path / "g.png"
    image = Image.new("RGBA", (4, 2), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 2, 2))
    image.save(path)
    left = torch.tensor([[1.0, 1, 0, 0]] * 2)
    assert torch.equal(as_plane(path), left)
    assert torch.equal(as_plane(path, "alpha"), left)
    assert torch.equal(as_plane(path, "black"), 1 - left)
    with pytest.raises(OmniAlphaError, match="polarity"):
        as_plane(path, "grey")


def test_what_nobody_can_ask_for_is_refused(pipeline):
    with pytest.raises(TypeError, match="step"):
        pipeline("text_to_rgba", text="a cup", step=3)
