"""The RGBA VAE against the authors' numbers: key layouts, opaque initialisation, loading, layers."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnialpha.checkpoint.vae_keys import is_rgba, key_layout, to_wan
from omnialpha.errors import OmniAlphaError
from omnialpha.model import vae as vaes

GOLDEN = Path(__file__).parent / "golden" / "vae"
FILE = GOLDEN / "diffusion_pytorch_model.safetensors"
KEYMAP = json.loads((GOLDEN / "keymap.json").read_text())
PICTURE_KEYS = {
    "encoder.conv_in.weight": (slice(None), slice(3)),
    "decoder.conv_out.weight": (slice(3),),
    "decoder.conv_out.bias": (slice(3),),
}


@pytest.fixture(scope="module")
def fixtures():
    return load_file(GOLDEN / "fixtures.safetensors")


@pytest.fixture(scope="module")
def weights():
    return load_file(FILE)


@pytest.fixture(scope="module")
def wan(weights):
    """The Wan layout by the fixture's own table of keys, not by our code."""
    return {KEYMAP[key]: tensor for key, tensor in weights.items()}


@pytest.fixture(scope="module")
def rgb(weights):
    """The RGB VAE inside: three of the four picture channels."""
    return {
        key: tensor[PICTURE_KEYS[key]].contiguous() if key in PICTURE_KEYS else tensor
        for key, tensor in weights.items()
    }


@pytest.fixture(scope="module")
def vae():
    return vaes.load_vae(FILE)


@pytest.fixture(scope="module")
def layer(fixtures):
    return fixtures["a.image_u8"].permute(2, 0, 1).float() / 255


def to_input(layer):
    return (layer * 2 - 1)[None, :, None]


def close(found, expected, tolerance=2e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def random_latent(*size):
    return torch.randn(1, 16, 1, *size, generator=torch.Generator().manual_seed(0))


# Key layouts


def test_keys_follow_all_194_pairs_both_ways(weights, wan):
    assert len(KEYMAP) == 194 and set(KEYMAP) == set(weights)
    for found, expected in [(to_wan(weights), wan), (vaes.to_diffusers(wan), weights)]:
        assert found.keys() == expected.keys()
        assert all(found[key] is expected[key] for key in expected), "a rename copies nothing"
    assert to_wan(wan) == wan and vaes.to_diffusers(weights) == weights


def test_layouts_are_told_apart(weights, wan):
    assert key_layout(weights) == "diffusers" and key_layout(list(wan)) == "wan"
    for other in [{}, {"encoder.conv_in.weight": 0, "decoder.conv_out.weight": 0}, {"decoder.head.0.gamma": 0}]:
        assert key_layout(other) is None
        with pytest.raises(OmniAlphaError, match="not the VAE of Qwen-Image"):
            to_wan(other)


def test_keys_that_the_vae_does_not_have(weights, wan):
    for convert, sd in [(to_wan, weights), (vaes.to_diffusers, wan)]:
        with pytest.raises(OmniAlphaError, match=r"'encoder\.extra\.weight'"):
            convert({**sd, "encoder.extra.weight": torch.zeros(1)})


# Against the authors


@pytest.mark.parametrize("layout", ["diffusers", "wan"])
def test_latents_and_pictures_equal_the_authors(tmp_path, wan, fixtures, layer, layout):
    path = FILE
    if layout == "wan":
        path = tmp_path / "vae.safetensors"
        save_file(wan, path)
    vae = vaes.load_vae(path)
    assert vae.dtype == torch.float32 and not vae.training and vae.config.input_channels == 4
    (latent,) = vaes.encode_layers(vae, [layer])
    close(latent, fixtures["a.latent_norm"][0, :, 0])
    close(vae.encode(to_input(layer)).latent_dist.parameters.detach(), fixtures["a.moments"])
    (decoded,) = vaes.decode_layers(vae, [latent])
    close(decoded * 2 - 1, fixtures["a.decoded"][0], 2e-5)
    steps = (decoded * 255).round() - fixtures["a.decoded_u8"].permute(2, 0, 1)
    assert steps.abs().max() <= 1


@pytest.mark.parametrize("layout", ["diffusers", "wan"])
def test_opaque_initialisation_equals_the_authors(rgb, fixtures, layer, layout):
    start = to_wan(rgb) if layout == "wan" else rgb
    assert vaes.channels(start) == (3, 3) and not is_rgba(start)
    grown = vaes.opaque_initialise(start)
    assert is_rgba(grown) and key_layout(grown) == layout
    assert all(tensor.dtype == torch.bfloat16 for tensor in grown.values())

    ours = vaes.to_diffusers(grown)
    for key, tensor in ours.items():
        part = tensor[PICTURE_KEYS[key]] if key in PICTURE_KEYS else tensor
        assert torch.equal(part, rgb[key]), "the RGB part is untouched"
    assert not ours["encoder.conv_in.weight"][:, 3].any() and not ours["decoder.conv_out.weight"][3].any()
    assert ours["decoder.conv_out.bias"][3] == 1

    vae = vaes.vae_from_weights(grown)
    with torch.no_grad():
        mean = vae.encode(to_input(layer)).latent_dist.mode()
        decoded = vae.decode(mean).sample[:, :, 0]
        anything = vae.decode(random_latent(8, 8) * 30).sample
    close(mean, fixtures["opaque.latent_mean"])
    close(decoded, fixtures["opaque.decoded"])
    close(decoded[:, :3], fixtures["opaque.rgb_decoded"])
    assert decoded[:, 3].eq(1).all() and anything[:, 3].eq(1).all()


def test_opaque_initialisation_ignores_alpha_bit_by_bit(rgb, layer):
    """Diffusers' own 3D path encodes a picture to the very bits that the RGB VAE gives, whatever its alpha."""
    from diffusers import AutoencoderKLQwenImage

    small = AutoencoderKLQwenImage(base_dim=8, input_channels=3).eval()
    small.load_state_dict({key: tensor.float() for key, tensor in rgb.items()})
    grown = AutoencoderKLQwenImage(base_dim=8, input_channels=4).eval()
    grown.load_state_dict({key: tensor.float() for key, tensor in vaes.opaque_initialise(rgb).items()})
    with torch.no_grad():
        expected = small.encode(to_input(layer[:3])).latent_dist.mode()
        assert torch.equal(grown.encode(to_input(layer)).latent_dist.mode(), expected)


def test_opaque_initialisation_wants_rgb(weights):
    with pytest.raises(OmniAlphaError, match=r"reads 4 and writes 4\. It is an RGBA VAE already"):
        vaes.opaque_initialise(weights)


# Loading


def test_statistics_come_from_the_config(tmp_path, weights, vae):
    assert vae.config.latents_mean[0] == -0.7571, "Qwen-Image's own"
    config = {"_class_name": "AutoencoderKLQwenImage", "latents_mean": [0.5] * 16, "latents_std": [2.0] * 16}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**config, "base_dim": 96, "input_channels": 3}))
    loaded = vaes.load_vae(tmp_path)
    assert loaded.config.latents_mean == [0.5] * 16 and loaded.config.base_dim == 8
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "CLIPTextModel"}))
    assert vaes.load_vae(tmp_path).config.latents_std[0] == 2.8184, "somebody else's config"


GOOD = {"latents_mean": [0.5] * 16, "latents_std": [2.0] * 16}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"latents_mean": "text"}, "latents_mean = 'text'"),
        ({"latents_mean": [0.5] * 15}, "latents_mean = 15 values; expected 16"),
        ({"latents_std": [2.0] * 17}, "latents_std = 17 values; expected 16"),
        ({"latents_mean": []}, "latents_mean = 0 values"),
        ({"latents_mean": [1.0, "a"] * 8}, "'a' in latents_mean"),
        ({"latents_mean": [True] * 16}, "True in latents_mean"),
        ({"latents_mean": [math.nan] * 16}, "nan in latents_mean"),
        ({"latents_mean": [[0.5]] * 16}, r"\[0.5\] in latents_mean"),
        ({"latents_std": [0.0] * 16}, "0.0 in latents_std"),
        ({"latents_std": [2.0] * 15 + [-2.0]}, "-2.0 in latents_std"),
        ({"latents_std": [math.inf] * 16}, "inf in latents_std"),
        ({"latents_std": [1e-50] * 16}, "1e-50 in latents_std"),
        ({"latents_std": None}, "no latents_std, which goes with its latents_mean"),
        ({"latents_mean": None}, "no latents_mean, which goes with its latents_std"),
    ],
)
def test_broken_statistics_are_named(tmp_path, change, words):
    shutil.copy(FILE, tmp_path / "model.safetensors")
    config = {"_class_name": "AutoencoderKLQwenImage", **GOOD, **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OmniAlphaError, match=words):
        vaes.load_vae(tmp_path)


def test_an_rgb_file_is_refused_or_grown(tmp_path, rgb):
    path = tmp_path / "rgb.safetensors"
    save_file(rgb, path)
    with pytest.raises(OmniAlphaError, match=r"rgb\.safetensors.* 3 and writes 3 channels.*convert-vae"):
        vaes.load_vae(path)
    assert vaes.load_vae(path, opaque_init=True).config.input_channels == 4


def test_opaque_init_leaves_rgba_files_alone(vae):
    again = vaes.load_vae(FILE, opaque_init=True)
    assert torch.equal(again.decoder.conv_out.weight, vae.decoder.conv_out.weight)


def damaged(weights, **changes):
    broken = {**weights, **changes}
    return {key: tensor for key, tensor in broken.items() if tensor is not None}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"decoder.conv_out.bias": None}, "decoder.conv_out.bias"),
        ({"post_quant_conv.weight": None}, "post_quant_conv.weight"),
        ({"decoder.conv_out.weight": None}, "decoder.conv_out.weight"),
        ({"post_quant_conv.weight": torch.zeros(())}, "complete Qwen-Image VAE"),
        ({"encoder.conv_in.weight": torch.zeros(3)}, "first or last convolution"),
        ({"decoder.conv_in.weight": torch.zeros(8, 16, 3, 3, 3)}, "decoder.conv_in.weight"),
        ({"quant_conv.weight": torch.full((32, 32, 1, 1, 1), math.nan)}, None),
    ],
)
def test_incomplete_files_are_named(tmp_path, weights, layer, changes, words):
    path = tmp_path / "broken.safetensors"
    save_file(damaged(weights, **changes), path)
    if words:
        with pytest.raises(OmniAlphaError, match=words):
            vaes.load_vae(path)
    else:
        with pytest.raises(OmniAlphaError, match="Encoded layer 1"):
            vaes.encode_layers(vaes.load_vae(path), [layer])


def test_other_files_are_no_vae(tmp_path):
    save_file({"lora.weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(FILE.read_bytes()[:5000])
    for name in ("lora.safetensors", "cut.safetensors", "missing.safetensors"):
        with pytest.raises(OmniAlphaError, match=name):
            vaes.load_vae(tmp_path / name)


# Layers


def test_layers_go_one_at_a_time_and_may_differ_in_size(vae):
    pictures = [torch.rand(4, 16, 24), torch.rand(4, 32, 8)]
    latents = vaes.encode_layers(vae, pictures)
    assert [tuple(latent.shape) for latent in latents] == [(16, 2, 3), (16, 4, 1)]
    for picture, latent in zip(pictures, latents, strict=True):
        assert torch.equal(vaes.encode_layers(vae, [picture])[0], latent)
    decoded = vaes.decode_layers(vae, torch.stack([latents[0]] * 2))
    assert len(decoded) == 2 and torch.equal(decoded[0], decoded[1])
    assert decoded[0].shape == (4, 16, 24) and decoded[0].min() >= 0 and decoded[0].max() <= 1
    assert not latents[0].requires_grad and not decoded[0].requires_grad


def test_half_precision_gives_float32_layers(vae):
    half = copy.deepcopy(vae).to(torch.bfloat16)
    (latent,) = vaes.encode_layers(half, [torch.rand(4, 16, 16)])
    (decoded,) = vaes.decode_layers(half, [latent])
    assert latent.dtype == decoded.dtype == torch.float32


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda vae: vaes.encode_layers(vae, [torch.zeros(4, 8, 8), torch.zeros(4, 12, 8)]),
            "Layer 2 to encode is 8x12",
        ),
        (lambda vae: vaes.encode_layers(vae, [torch.zeros(3, 8, 8)]), r"\[3, 8, 8\]"),
        (lambda vae: vaes.encode_layers(vae, [torch.full((4, 8, 8), math.nan)]), "NaN"),
        (lambda vae: vaes.decode_layers(vae, torch.zeros(1, 4, 8, 8)), r"\[16, height, width\], got \[4, 8, 8\]"),
        (lambda vae: vaes.decode_layers(vae, torch.full((1, 16, 2, 2), math.nan)), "Latent 1 to decode holds NaN"),
        (lambda vae: vaes.decode_layers(vae, torch.full((1, 16, 2, 2), math.inf)), "Latent 1 to decode holds NaN"),
    ],
)
def test_bad_layers_and_latents_are_named(vae, call, words):
    with pytest.raises(OmniAlphaError, match=words):
        call(vae)


def test_a_vae_that_overflows_is_named(vae):
    broken = copy.deepcopy(vae)
    with torch.no_grad():
        broken.decoder.conv_out.bias.fill_(math.nan)
    with pytest.raises(OmniAlphaError, match="Decoded layer 1 holds NaN"):
        vaes.decode_layers(broken, torch.zeros(1, 16, 2, 2))
