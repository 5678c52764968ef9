"""MODEL: positions, LoRA, guidance, loading, and what patches leave behind."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import comfy.lora
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.sample
import comfy.supported_models
import folder_paths
import torch
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrappersMP
from inside import fails, golden, job, micro, part, run, worst
from safetensors.torch import load_file, save_file

import nodes

TOLERANCE = job["tolerance"]  # a wrong position is off by .7 and more


def load_golden():
    return part("nodes.adapters.transformer").load_transformer(golden("dit/transformer"))


def forward(model, x, t, context, references, **options):
    """One call of the diffusion model as samplers make it: patches applied, wrappers run."""
    comfy.model_management.load_models_gpu([model])
    wrappers = {"wrappers": model.wrappers, **options}
    return model.model.diffusion_model(x, t, context, ref_latents=references or None, transformer_options=wrappers)


def cases():
    """(name, forward's inputs, velocity) of every fixture."""
    tensors = load_file(golden("dit/forward.safetensors"))
    for name in sorted({key.split(".")[0] for key in tensors}):
        case = {key.split(".", 1)[1]: tensor for key, tensor in tensors.items() if key.split(".")[0] == name}
        references = [case[key] for key in sorted(case) if key.startswith("ref")]
        yield name, (case["x"], case["t"], case["context"], references), case["out"]


def one_case():
    """(forward's inputs, velocity) of two targets and one input, where native positions go wrong."""
    return next((inputs, out) for name, inputs, out in cases() if name == "m2n1")


def check_positions_match_the_reference_in_every_case():
    model = part("nodes.adapters.positions").install(load_golden())
    errors = {name: worst(forward(model, *inputs), out) for name, inputs, out in cases()}
    assert errors and max(errors.values()) < TOLERANCE, errors
    return errors


def check_native_positions_would_be_wrong():
    model = load_golden()
    errors = {name: worst(forward(model, *inputs), out) for name, inputs, out in cases()}
    assert max(errors.values()) > 0.1, "the fixtures no longer tell positions apart"
    return errors


def check_lora_through_the_core_loader():
    folder_paths.add_model_folder_path("loras", str(golden("dit")))
    positions = part("nodes.adapters.positions")
    plain = positions.install(load_golden())
    (loaded,) = nodes.LoraLoaderModelOnly().load_lora_model_only(plain, "lora_rank4.safetensors", 1.0)
    inputs, out = one_case()
    error = worst(forward(loaded, *inputs), load_file(golden("dit/forward_lora.safetensors"))["m2n1.out"])
    assert error < TOLERANCE, error
    assert worst(forward(plain, *inputs), out) < TOLERANCE, "the LoRA stayed in the model it was not loaded into"
    return {"m2n1": error}


def check_a_lora_of_our_trainer_through_the_core_loader():
    folder_paths.add_model_folder_path("loras", str(Path(job["scratch"]) / "loras"))
    plain = part("nodes.adapters.positions").install(load_golden())
    (loaded,) = nodes.LoraLoaderModelOnly().load_lora_model_only(plain, "trained.safetensors", 1.0)
    inputs, _ = one_case()
    error = worst(forward(loaded, *inputs), load_file(golden("dit/forward_lora.safetensors"))["m2n1.out"])
    assert error < TOLERANCE, error
    return {"m2n1": error}


def check_a_lora_in_the_checkpoint_folder():
    """PEFT's prefix is understood too, and a LoRA for something else is not passed over."""
    apply_lora, model = part("nodes.adapters.lora").apply_lora, load_golden()
    tensors = load_file(golden("dit/lora_rank4.safetensors"))
    peft = {f"base_model.model.{name.removeprefix('transformer.')}": tensor for name, tensor in tensors.items()}
    file = Path(job["scratch"]) / "peft.safetensors"
    save_file(peft, file)
    loaded = part("nodes.adapters.positions").install(apply_lora(model, file))
    inputs, _ = one_case()
    wanted = load_file(golden("dit/forward_lora.safetensors"))["m2n1.out"]
    assert worst(forward(loaded, *inputs), wanted) < TOLERANCE
    save_file({"unet.down.lora_A.weight": torch.zeros(4, 4), "unet.down.lora_B.weight": torch.zeros(4, 4)}, file)
    fails(lambda: apply_lora(model, file), "peft.safetensors", "none of its 1 layers", "unet.down")


def check_the_public_folder_layout():
    """Qwen-Image-Edit's folder with an RGB VAE, beside it OmniAlpha's rgba_vae and lora, no omnialpha.json."""
    import folder_paths as paths

    folder = Path(paths.models_dir) / "omnialpha" / "public"
    shutil.copytree(job["micro"], folder)
    (folder / "omnialpha.json").unlink()
    (folder / "vae").rename(folder / "rgba_vae")
    (folder / "lora").mkdir()
    target = "transformer_blocks.0.attn.to_q"
    down, up = torch.randn(3, 128), torch.zeros(128, 3)
    save_file({f"{target}.lora_A.weight": down, f"{target}.lora_B.weight": up}, folder / "lora/weights.safetensors")
    assert "public" in part("nodes.adapters.model_folders").checkpoint_names()
    model, _, vae = run("OmniAlphaLoadCheckpoint", "public")
    assert list(model.patches) == [f"diffusion_model.{target}.weight"] and vae.output_channels == 4
    settings = part("nodes.adapters.settings").settings_of(model)
    assert settings.tasks == part("omnialpha.checkpoint.settings").PUBLIC and settings.pixel_budget == 1024**2
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/merges.txt").unlink()
    fails(lambda: run("OmniAlphaLoadCheckpoint", "public"), "not a complete checkpoint", "tokenizer")
    shutil.rmtree(folder)
    fails(lambda: run("OmniAlphaLoadCheckpoint", "public"), "'public'", "any more")


def check_clones_are_independent():
    positions = part("nodes.adapters.positions")
    original = load_golden()
    inputs, out = one_case()
    native = forward(original, *inputs)
    bil, flat = positions.install(original), positions.install(original, "2d")
    assert worst(forward(bil, *inputs), out) < TOLERANCE
    assert worst(forward(flat, *inputs), out) > 1e-3
    assert worst(forward(bil, *inputs), out) < TOLERANCE, "the other clone's axis came through"
    assert torch.equal(forward(original, *inputs), native), "the original was changed"
    assert isinstance(original.model.diffusion_model.pe_embedder, EmbedND)
    assert not positions.is_installed(original) and positions.is_installed(bil)
    again = positions.install(flat, "bil")
    assert worst(forward(again, *inputs), out) < TOLERANCE, "installing twice must replace the axis"
    assert len(again.get_wrappers(WrappersMP.DIFFUSION_MODEL, "omnialpha_positions")) == 1


def check_other_wrappers_before_and_after():
    positions = part("nodes.adapters.positions")
    inputs, out = one_case()

    def halve(executor, *args, **kwargs):
        return executor(*args, **kwargs) / 2

    before = load_golden().clone()
    before.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", halve)
    before = positions.install(before)
    after = positions.install(load_golden())
    after.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", halve)
    assert worst(forward(before, *inputs), out / 2) < TOLERANCE
    assert worst(forward(after, *inputs), out / 2) < TOLERANCE


def check_another_token_count_is_refused():
    positions = part("nodes.adapters.positions")
    model = positions.install(load_golden())
    (x, t, context, references), _ = one_case()
    original = model.model.diffusion_model.process_img

    def one_more(latent, **kwargs):
        tokens, ids, shape = original(latent, **kwargs)
        return torch.cat([tokens, tokens[:, :1]], 1), torch.cat([ids, ids[:, :1]], 1), shape

    model.add_object_patch("diffusion_model.process_img", one_more)
    fails(lambda: forward(model, x, t, context, references), "tokens", "Another extension")
    fails(
        lambda: forward(positions.install(load_golden()), x, t, context[..., :7], []),
        "7 values",
        "different checkpoints",
    )


def check_wrong_model_is_named():
    positions = part("nodes.adapters.positions")

    class Stranger:
        model = torch.nn.Linear(1, 1)

    fails(lambda: positions.install(Stranger()), "Linear", "Qwen-Image-Edit-2509")


def check_models_derived_from_qwen_images_are_named():
    """Newer ComfyUIs make other models from Qwen-Image's class, with another transformer inside."""
    positions = part("nodes.adapters.positions")

    class Derived(comfy.model_base.QwenImage):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.diffusion_model = torch.nn.Linear(1, 1)

    fails(lambda: positions.install(SimpleNamespace(model=Derived())), "Derived", "Linear", "Qwen-Image-Edit-2509")
    if hasattr(comfy.supported_models, "MageFlow"):
        config = comfy.supported_models.MageFlow({"image_model": "mage_flow", "num_layers": 1})
        mage_flow = SimpleNamespace(model=config.get_model({}, "", device="meta"))
        fails(lambda: positions.install(mage_flow), "MageFlow", "Qwen-Image-Edit-2509")
        fails(
            lambda: run("OmniAlphaTask", mage_flow, *micro()[1:], "text_to_rgba", "", "", 1, 1, 1.0, "euler", "scale"),
            "MageFlow",
        )


def check_guidance_is_the_librarys():
    guidance = part("nodes.adapters.guidance")
    library, sequence = part("omnialpha.model.sampling"), part("omnialpha.model.tokens")
    generator = torch.Generator().manual_seed(0)
    cond, uncond = (torch.randn(1, 16, 2, 6, 4, generator=generator) for _ in range(2))
    wanted = library.guide(*(sequence.pack(v, [])[0] for v in (cond, uncond)), 4.0)
    found = guidance.rescaled_guidance({"cond": 0.3 * cond, "uncond": 0.3 * uncond, "cond_scale": 4.0})
    assert worst(found / 0.3, sequence.unpack(wanted, 2, 6, 4)) < 1e-5
    assert guidance.rescaled_guidance({"cond": cond, "uncond": None, "cond_scale": 1.0}) is cond
    for shape in ((1, 16, 1, 5, 7), (2, 16, 3, 4)):  # odd sides are padded inside; 4D latents have no frames
        odd = torch.randn(shape, generator=generator)
        assert guidance.rescaled_guidance({"cond": odd, "uncond": -odd, "cond_scale": 2.0}).shape == shape


def check_noise_is_the_librarys():
    latent = part("nodes.adapters.sampling").empty_latent(3, (64, 48))["samples"]
    noise = comfy.sample.prepare_noise(latent, 123)
    assert torch.equal(noise, part("omnialpha.model.sampling").initial_noise(123, 3, 8, 6))


def check_settings_and_statistics_travel():
    model, clip, vae = micro()
    settings = part("nodes.adapters.settings")
    stated = settings.settings_of(model.clone())
    assert stated.pixel_budget == part("omnialpha.checkpoint.settings").read_settings(job["micro"]).pixel_budget
    assert settings.settings_of(clip.clone().patcher) is stated and settings.settings_of(vae.patcher) is stated
    config = json.loads((Path(job["micro"]) / "vae/config.json").read_text())
    mean = model.model.latent_format.latents_mean.flatten()
    assert worst(mean, torch.tensor(config["latents_mean"])) == 0, "samplers would normalise with Qwen-Image's numbers"
    fresh = comfy.supported_models.QwenImage({}).latent_format.latents_mean.flatten()
    assert worst(fresh, mean) > 0, "the statistics leaked into other models"


def check_every_public_key_has_its_place():
    """The full architecture on the meta device, from nothing but the published names and shapes."""
    transformer = part("nodes.adapters.transformer")
    tensors = {name: torch.empty(shape, device="meta") for name, shape in job["full_transformer"].items()}
    shape = transformer.architecture(tensors, {"axes_dims_rope": [16, 56, 56]}, "the public checkpoint")
    model = comfy.supported_models.QwenImage(shape).get_model(tensors, "", device="meta")
    wanted = {name: tuple(t.shape) for name, t in model.diffusion_model.state_dict().items()}
    assert wanted == {name: tuple(t.shape) for name, t in tensors.items()}
    detected = comfy.model_detection.model_config_from_unet(tensors, "")
    assert isinstance(detected, comfy.supported_models.QwenImage), "UNETLoader would not take it"
    return {"tensors": len(wanted), "blocks": shape["num_layers"]}


def check_the_full_model_runs_with_positions():
    """Sixty blocks without values: every shape from the latents to the velocity."""
    config = comfy.supported_models.QwenImage({"image_model": "qwen_image", "in_channels": 64, "num_layers": 60})
    model = config.get_model({}, "", device="meta")
    positions = part("nodes.adapters.positions")
    model.diffusion_model.pe_embedder = positions.LayerEmbedder(model.diffusion_model.pe_embedder)
    reader = positions.LayoutReader("bil")
    x = torch.empty(1, 16, 2, 64, 48, device="meta")
    references = [torch.empty(1, 16, 1, 64, 48, device="meta"), torch.empty(1, 16, 1, 32, 32, device="meta")]
    options = {
        "wrappers": {WrappersMP.DIFFUSION_MODEL: {"omnialpha": [reader]}},
        # The CPU's own attention asks the device for its free memory, which the meta device has not.
        "optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(*args, **kwargs),
    }
    context = torch.empty(1, 77, 3584, device="meta")
    sigma = torch.empty(1, device="meta")
    out = model.diffusion_model(x, sigma, context, ref_latents=references, transformer_options=options)
    assert out.shape == x.shape


def check_loras_of_any_rank_reach_every_layer():
    model = load_golden()
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    weights = {
        k: w for k, w in model.model.diffusion_model.state_dict().items() if k.endswith("weight") and w.ndim == 2
    }
    for rank, prefix in ((1, "transformer."), (3, ""), (64, "transformer.")):
        lora = {}
        for key, weight in weights.items():
            name = prefix + key.removesuffix(".weight")
            lora[f"{name}.lora_A.weight"] = torch.zeros(rank, weight.shape[1])
            lora[f"{name}.lora_B.weight"] = torch.zeros(weight.shape[0], rank)
        patches = comfy.lora.load_lora(lora, key_map)
        assert {key.removeprefix("diffusion_model.") for key in patches} == set(weights), (rank, prefix)
    return {"layers": len(weights)}


def check_damaged_transformers_are_refused():
    transformer = part("nodes.adapters.transformer")
    folder = golden("dit/transformer")
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    fails(lambda: transformer.architecture({"a": torch.zeros(1)}, {}, "x"), "img_in.weight", "1 tensors")
    fails(lambda: transformer.architecture(tensors, {"axes_dims_rope": [8, 8, 8]}, "x"), "add up to 32")
    copy = Path(job["scratch"]) / "holed"
    shutil.copytree(folder, copy)
    tensors.pop("proj_out.bias")
    save_file(tensors, copy / "diffusion_pytorch_model.safetensors")
    fails(lambda: transformer.load_transformer(copy), "proj_out.bias is missing")


def check_nothing_is_left_in_the_models():
    model, clip, vae = micro()
    image = torch.rand(1, 48, 48, 3)
    run("OmniAlphaTask", model, clip, vae, "matting_auto", "", "", 1, 1, 2.0, "euler", "scale", image=image)
    comfy.model_management.unload_all_models()
    assert isinstance(model.model.diffusion_model.pe_embedder, EmbedND)
    tower = clip.cond_stage_model.qwen25_7b.transformer.visual
    assert not isinstance(tower.forward, part("nodes.adapters.window_order").InOrder)
    assert "sampler_cfg_function" not in model.model_options and not model.object_patches


def check_sigmas_are_the_librarys():
    model, _, _ = micro()
    library, stated = part("omnialpha.model.sampling"), part("nodes.adapters.settings").settings_of(model)
    latent = part("nodes.adapters.sampling").empty_latent(2, (96, 64))
    tokens = 2 * 6 * 4
    (found,) = run("OmniAlphaSigmas", latent, 0, model)
    assert torch.equal(found, library.sigmas(stated.steps, tokens, stated.schedule))
    (found,) = run("OmniAlphaSigmas", latent, 7)
    assert torch.equal(found, library.sigmas(7, tokens))
    (found,) = run("OmniAlphaSigmas", latent, 7, None, 1.0, 2.0, 0.0)
    assert torch.equal(found, library.sigmas(7, tokens, library.Schedule(1.0, 2.0, terminal=None)))
    fails(lambda: run("OmniAlphaSigmas", {"samples": torch.zeros(1, 4, 8, 8)}, 7), "[1, 4, 1, 8, 8]")


def check_conditioning_holds_raw_latents_of_every_layer():
    _, clip, vae = micro()
    (sequence,) = run(
        "OmniAlphaSequence",
        2,
        0,
        0,
        "scale",
        layers={"layer0": torch.rand(1, 64, 96, 3), "layer1": torch.rand(1, 50, 50, 4)},
    )
    positive, negative, latent = run("OmniAlphaInstruct", clip, vae, sequence, "Separate  the\nobject.", "")
    fitted = sequence.fitted(16384, 16)
    wanted = part("nodes.adapters.layer_vae").encode(vae, fitted.inputs)
    for conditioning in (positive, negative):
        found = conditioning[0][1]["reference_latents"]
        assert len(found) == 2 and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert latent["samples"].shape == (1, 16, 2, fitted.size[0] // 8, fitted.size[1] // 8)
    assert positive[0][0].shape[1] > negative[0][0].shape[1]
