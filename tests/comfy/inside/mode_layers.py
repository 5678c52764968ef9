"""Micro at work in whatever mode ComfyUI is; what it makes is written down, to be held against that of other modes."""

from pathlib import Path

import torch
from comfy_extras import nodes_custom_sampler as sampling
from inside import job, micro, part, picture, run
from safetensors.torch import save_file

WORDS = "Draw a background for the object."


def check_the_task_node_and_single_steps():
    """Both ways to the same layers, from a picture of several windows of the vision tower."""
    model, clip, vae = micro()
    layer = picture(7, 128, 128, 4)
    whole, *_ = run("OmniAlphaTask", model, clip, vae, "fg_to_bg", "", WORDS, 5, 3, 2.5, "euler", "scale", image=layer)

    (sequence,) = run("OmniAlphaSequence", 1, 0, 0, "scale", layers={"layer0": layer})
    positive, negative, latent = run("OmniAlphaInstruct", clip, vae, sequence, WORDS, "")
    (patched,) = run("OmniAlphaPatchModel", model, True, "MSRoPE-BiL")
    (sigmas,) = run("OmniAlphaSigmas", latent, 3, model)
    (guider,) = sampling.CFGGuider.execute(patched, positive, negative, 2.5).args
    (noise,), (sampler,) = sampling.RandomNoise.execute(5).args, sampling.KSamplerSelect.execute("euler").args
    sampled, _ = sampling.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args
    pieces, _ = run("OmniAlphaDecodeLayers", vae, sampled, sequence)

    assert torch.equal(whole, pieces), float((whole - pieces).abs().max())
    assert float(whole.std()) > 0.02, "a flat picture would prove nothing"
    _keep("micro", whole)
    by_layer = [module for module in patched.model.modules() if getattr(module, "comfy_cast_weights", False)]
    return {"dynamic": getattr(patched, "is_dynamic", bool)(), "cast at use": len(by_layer)}


def check_models_whose_precision_comfyui_chooses():
    """As every model but micro: loaded in what its files hold and the options say."""
    precision = part("nodes.adapters.precision")
    small, precision.SMALL = precision.SMALL, 0
    try:
        model, clip, vae = run("OmniAlphaLoadCheckpoint", "micro")
    finally:
        precision.SMALL = small
    layer = picture(7, 128, 128, 4)
    whole, *_ = run("OmniAlphaTask", model, clip, vae, "fg_to_bg", "", WORDS, 5, 3, 2.5, "euler", "scale", image=layer)
    assert torch.isfinite(whole).all() and float(whole.std()) > 0.02
    _keep("chosen", whole)
    return {"transformer": str(model.model.get_dtype()), "vae": str(vae.vae_dtype)}


def _keep(name: str, layers: torch.Tensor):
    save_file({"layers": layers.contiguous()}, Path(job["scratch"]) / f"{name}.safetensors")
