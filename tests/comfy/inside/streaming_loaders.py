"""What our loaders give where ComfyUI streams weights: what it does with the core loaders' MODEL, CLIP and VAE."""

import shutil
from pathlib import Path

import comfy.hooks
import comfy.model_management
import comfy.sd
import folder_paths
import torch
from comfy.text_encoders.qwen_vl import Qwen2VLVisionTransformer
from comfy_extras import nodes_custom_sampler as sampling
from comfy_extras import nodes_hooks, nodes_multigpu, nodes_torch_compile
from inside import fails, golden, job, micro, part, picture, run
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


def patchers():
    """(name, patcher) of everything that a loader of ours puts out, each loaded anew."""
    model, clip, vae = run("OmniAlphaLoadCheckpoint", "micro")
    yield "model", model
    yield "clip", clip.patcher
    yield "vae", vae.patcher
    (alone,) = run("OmniAlphaLoadVAE", _a_vae_file("rgba.safetensors"), False)
    yield "vae from a file", alone.patcher
    (opaque,) = run("OmniAlphaLoadVAE", _a_vae_file("rgb.safetensors", channels=3), True)
    yield "opaque vae", opaque.patcher


def _a_vae_file(name: str, channels: int = 4) -> str:
    tensors = load_file(golden("vae/diffusion_pytorch_model.safetensors"))
    tensors["encoder.conv_in.weight"] = tensors["encoder.conv_in.weight"][:, :channels].contiguous()
    for part_of in ("weight", "bias"):
        tensors[f"decoder.conv_out.{part_of}"] = tensors[f"decoder.conv_out.{part_of}"][:channels].contiguous()
    save_file(tensors, Path(folder_paths.models_dir) / "vae" / name)
    return name


def same_weights(one: torch.nn.Module, other: torch.nn.Module):
    """Equal names, values and dtypes, in modules that share no memory."""
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys() and one
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype == torch.float32, name
        assert torch.equal(tensor, other[name]), name
        assert tensor.numel() == 0 or tensor.data_ptr() != other[name].data_ptr(), name


def layers(model, clip, vae) -> torch.Tensor:
    """What the task node makes of them."""
    image = picture(3, 64, 64)
    whole, *_ = run("OmniAlphaTask", model, clip, vae, "matting_auto", "", "", 1, 1, 1.0, "euler", "scale", image=image)
    return whole


def check_everything_can_be_loaded_again():
    """The two calls ComfyUI makes, for another device and for a patcher that does not stream."""
    for name, patcher in patchers():
        load, arguments, *index = patcher.cached_patcher_init
        assert not index, name
        for options in ({}, {"disable_dynamic": True}):
            again = load(*arguments, **options)
            assert again.model is not patcher.model and type(again.model).__name__ == type(patcher.model).__name__
            same_weights(again.model, patcher.model)
            assert (again.load_device, again.offload_device) == (patcher.load_device, patcher.offload_device)
            assert again.cached_patcher_init == patcher.cached_patcher_init


def check_copies_for_other_devices_are_equal():
    """What multi-GPU work units and the Select Device nodes do; the second device is the CPU once more."""
    for name, patcher in patchers():
        copy = patcher.deepclone_multigpu(new_load_device=CPU)
        same_weights(copy.model, patcher.model)
        assert type(copy) is type(patcher) and copy.attachments == patcher.attachments, name
        plain = patcher.clone(disable_dynamic=True)
        assert not plain.is_dynamic(), name
        same_weights(plain.model, copy.model)


def check_copies_make_the_same_layers():
    model, clip, vae = run("OmniAlphaLoadCheckpoint", "micro")
    wanted = layers(model, clip, vae)
    (patched,) = run("OmniAlphaPatchModel", model, True, "MSRoPE-BiL")
    for one in (model, patched):
        copy = one.deepclone_multigpu(new_load_device=CPU)
        mean = one.model.latent_format.latents_mean
        assert torch.equal(copy.model.latent_format.latents_mean, mean), "the copy would normalise otherwise"
        assert torch.equal(layers(copy, clip, vae), wanted)
    (on_cpu,) = nodes_multigpu.SelectModelDeviceNode.execute(model, "cpu").args
    (clip_on_cpu,) = nodes_multigpu.SelectCLIPDeviceNode.execute(clip, "cpu").args
    assert torch.equal(layers(on_cpu, clip_on_cpu, vae), wanted)


def check_torch_compile_takes_it():
    """Not run: tracing takes half a minute."""
    model, _, _ = micro()
    (compiled,) = nodes_torch_compile.TorchCompileModel.execute(model, "inductor").args
    assert not compiled.is_dynamic()
    same_weights(compiled.model, model.model)


def check_hooks_take_it():
    """A LoRA put on by a hook gives what the same LoRA gives loaded, on the MODEL and on the CLIP."""
    model, clip, vae = micro()
    image = picture(4, 64, 64)
    (sequence,) = run("OmniAlphaSequence", 1, 0, 0, "scale", layers={"layer0": image})
    positive, negative, latent = run("OmniAlphaInstruct", clip, vae, sequence, "Cut it out.", "")
    lora = _lora("diffusion_model.transformer_blocks.0.attn.to_q", model.model)
    hooks = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    loaded, _ = comfy.sd.load_lora_for_models(model.clone(disable_dynamic=True), None, lora, 1.0, 0.0)

    def sampled(one, conditioning):
        (patched,) = run("OmniAlphaPatchModel", one, True, "MSRoPE-BiL")
        return _sample(patched, conditioning, negative, latent)

    with_hook = comfy.hooks.set_hooks_for_conditioning(positive, hooks)
    plain, wanted, found = sampled(model, positive), sampled(loaded, positive), sampled(model, with_hook)
    assert float((wanted - plain).abs().max()) > 1e-3, "the LoRA would prove nothing"
    error = float((found - wanted).abs().max())
    assert error < 1e-5, error

    hooked = nodes_hooks.SetClipHooks().apply_hooks(clip, False, True, hooks)[0]
    again, _, _ = run("OmniAlphaInstruct", hooked, vae, sequence, "Cut it out.", "")
    assert torch.equal(again[0][0], positive[0][0]) and "hooks" in again[0][1]
    return {"hook against loader": error}


def _lora(layer: str, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    rows, columns = model.state_dict()[f"{layer}.weight"].shape
    generator = torch.Generator().manual_seed(0)
    return {
        f"{layer}.lora_A.weight": torch.randn(2, columns, generator=generator) / 4,
        f"{layer}.lora_B.weight": torch.randn(rows, 2, generator=generator) / 4,
    }


def _sample(model, positive, negative, latent) -> torch.Tensor:
    (guider,) = sampling.CFGGuider.execute(model, positive, negative, 1.0).args
    (noise,), (sampler,) = sampling.RandomNoise.execute(5).args, sampling.KSamplerSelect.execute("euler").args
    (sigmas,) = run("OmniAlphaSigmas", latent, 1, model)
    return sampling.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]["samples"]


def check_the_order_of_pieces_is_still_found_out():
    """The probe tells a vision tower that leaves its pieces in window order from the one at hand, which does not."""

    class Scrambling(Qwen2VLVisionTransformer):
        def forward(self, pixel_values, image_grid_thw=None):
            tokens = super().forward(pixel_values, image_grid_thw)
            return tokens[torch.as_tensor(self.get_window_index(image_grid_thw)[0])]

    scrambles = part("nodes.adapters.window_order").scrambles
    assert scrambles(Scrambling) and not scrambles(Qwen2VLVisionTransformer)


DAMAGED = {
    "transformer": "transformer_blocks.0.attn.to_q.weight",
    "text_encoder": "model.language_model.layers.0.mlp.down_proj.weight",
    "vae": "encoder.mid_block.resnets.0.conv1.weight",
}


def check_damaged_files_are_refused():
    """Layers without weights would take a tensor of any shape, and go on with zeros where one is missing."""
    for subfolder, name in DAMAGED.items():
        folder = Path(folder_paths.models_dir) / "omnialpha/damaged"
        shutil.copytree(job["micro"], folder)
        (file,) = (folder / subfolder).glob("*.safetensors")
        tensors = load_file(file)
        whole = tensors.pop(name)
        save_file(tensors, file)
        fails(lambda: run("OmniAlphaLoadCheckpoint", "damaged"), subfolder, "missing")
        save_file(tensors | {name: whole[:-1].contiguous()}, file)
        fails(lambda: run("OmniAlphaLoadCheckpoint", "damaged"), subfolder)
        shutil.rmtree(folder)
