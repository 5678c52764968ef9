"""Whole runs and other shapes against diffusers, where nothing but rounding may differ."""

from __future__ import annotations

import pytest
import reference
import torch

from omnialpha import pipeline as pipelines
from omnialpha.checkpoint.lora import apply_lora
from omnialpha.layers.resizing import Frame
from omnialpha.layers.sequence import FittedSequence
from omnialpha.model.rope import install_rope
from omnialpha.model.vae import load_vae
from omnialpha.request import Request

VAE = reference.GOLDEN / "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    reference.write_lora(path)
    return path


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters")
@pytest.mark.parametrize("name", reference.RUNS)
def test_a_run_ends_where_diffusers_ends(monkeypatch, lora, name):
    """The pipeline's own loop, with latents in place of pictures and embeddings in place of words."""
    from diffusers import QwenImageTransformer2DModel

    run = reference.RUNS[name]
    folder = reference.GOLDEN / "dit/transformer"
    transformer = install_rope(QwenImageTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32))
    if run.lora:
        assert apply_lora(transformer, lora) == []
    drawn = reference.draw(run)
    latents = [drawn[f"input{i}"][0, :, 0] for i in range(len(run.inputs))]
    found = []

    def decode(vae, latents):
        found.append(torch.stack(list(latents), dim=1)[None])
        return [torch.ones(4, 8 * run.size[0], 8 * run.size[1])] * run.targets

    monkeypatch.setattr(pipelines, "encode_layers", lambda vae, layers: latents)
    monkeypatch.setattr(pipelines, "decode_layers", decode)
    monkeypatch.setattr(pipelines.OmniAlphaPipeline, "_context", lambda self, prompt, layers, device: drawn[prompt])
    pipeline = pipelines.OmniAlphaPipeline(transformer, load_vae(VAE), None, None, None)
    size = (8 * run.size[0], 8 * run.size[1])
    fitted = FittedSequence([], run.targets, size, Frame(size, size))
    asked = {"num_targets": run.targets, "size": size, "steps": run.steps, "guidance": run.guidance}
    plan = Request(instruction="context", negative="negative", **asked).plan(pipeline.settings)
    with torch.no_grad():
        pipeline._make(plan, fitted, lambda preview: None)
    expected = reference.sample(run, lora if run.lora else None)
    torch.testing.assert_close(found[0], expected, atol=reference.TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", reference.PICTURES)
def test_pictures_of_other_shapes(name):
    size = reference.PICTURES[name]
    stock, vae = reference.vae(size), load_vae(VAE)
    mean, std = (torch.tensor(vae.config[key])[:, None, None] for key in ("latents_mean", "latents_std"))
    (latent,) = pipelines.encode_layers(vae, [reference.layer(size)])
    torch.testing.assert_close(latent * std + mean, stock["latent"][0, :, 0], atol=reference.TOLERANCE, rtol=0)
    (decoded,) = pipelines.decode_layers(vae, [(stock["latent"][0, :, 0] - mean) / std])
    torch.testing.assert_close(decoded, stock["decoded"], atol=reference.TOLERANCE, rtol=0)
