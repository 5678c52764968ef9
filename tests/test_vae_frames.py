"""Single frames through the video VAE: the 2D fast path and tiling give diffusers' own values."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from omnialpha.model import single_frame
from omnialpha.model import vae as vaes

FILE = Path(__file__).parent / "golden" / "vae" / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def vae():
    return vaes.load_vae(FILE)


@pytest.fixture(scope="module")
def stock():
    """The same VAE without our fast path."""
    from diffusers import AutoencoderKLQwenImage

    model = AutoencoderKLQwenImage(base_dim=8, input_channels=4)
    model.load_state_dict({key: tensor.float() for key, tensor in load_file(FILE).items()})
    return model.eval().requires_grad_(False)


def close(found, expected, tolerance=2e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def random_latent(*size):
    return torch.randn(1, 16, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch, height, width", [(1, 64, 64), (2, 40, 72), (1, 8, 8)])
def test_the_fast_path_is_exact(vae, stock, batch, height, width):
    x = torch.rand(batch, 4, 1, height, width) * 2 - 1
    with torch.no_grad():
        moments = vae.encode(x).latent_dist.parameters
        close(moments, stock.encode(x).latent_dist.parameters, 1e-5)
        close(vae.decode(moments[:, :16]).sample, stock.decode(moments[:, :16]).sample, 1e-5)


def test_videos_take_diffusers_path(vae, stock):
    x = torch.rand(1, 4, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        moments = vae.encode(x).latent_dist.parameters
        assert moments.shape[2] == 2
        close(moments, stock.encode(x).latent_dist.parameters, 1e-5)
        close(vae.decode(moments[:, :16]).sample, stock.decode(moments[:, :16]).sample, 1e-5)


def test_the_fast_path_belongs_to_one_instance(vae, stock):
    clone = copy.deepcopy(vae)
    assert clone._encode.__self__ is clone and clone.decoder.conv_in.forward.__self__ is clone.decoder.conv_in
    assert "_encode" not in vars(stock) and "forward" not in vars(stock.decoder.conv_in)
    twice = vaes.single_frame(vaes.single_frame(clone))
    z = random_latent(4, 4)
    with torch.no_grad():
        assert torch.equal(twice.decode(z).sample, vae.decode(z).sample)


def test_the_fast_path_keeps_hooks_of_others(vae):
    """encode_layers puts the path on every time; offloading hooks that came in between must stay."""
    clone = copy.deepcopy(vae)
    seen, conv = [], clone.decoder.conv_in
    inner = conv.forward
    conv.forward = lambda *args: seen.append(1) or inner(*args)
    vaes.decode_layers(clone, torch.zeros(1, 16, 2, 2))
    assert seen == [1]


def test_the_fast_path_saves_and_trains(vae, tmp_path):
    clone = copy.deepcopy(vae)
    clone.save_pretrained(tmp_path)
    assert vaes.load_vae(tmp_path).state_dict().keys() == vae.state_dict().keys()
    clone.decode(random_latent(2, 2)).sample.square().sum().backward()
    gradient = clone.decoder.conv_in.weight.grad
    assert gradient[:, :, -1].any() and not gradient[:, :, :-1].any(), "only the last temporal tap takes part"


# Tiling


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(single_frame, "TILE", 8)


@pytest.mark.parametrize("h, w", [(20, 17), (8, 33), (3, 40)])
def test_tiles_leave_no_seams(vae, small_tiles, h, w):
    picture, latent = torch.rand(4, 8 * h, 8 * w), torch.randn(16, h, w)
    (whole,), (tiled,) = (vaes.encode_layers(vae, [picture], tile=tile) for tile in (False, True))
    close(tiled, whole, 1e-5)
    (whole,), (tiled,) = (vaes.decode_layers(vae, [latent], tile=tile) for tile in (False, True))
    close(tiled, whole, 1e-5)


def test_the_margins_are_needed(vae, small_tiles, monkeypatch):
    """With less than the convolutions see, tiles show."""
    monkeypatch.setattr(single_frame, "DECODER_MARGIN", 4)
    latent = torch.randn(16, 24, 24)
    (whole,), (tiled,) = (vaes.decode_layers(vae, [latent], tile=tile) for tile in (False, True))
    assert (whole - tiled).abs().max() > 1e-4


def test_large_pictures_are_tiled_without_asking(vae, small_tiles, monkeypatch):
    calls = []
    run_tiled = single_frame.run_tiled
    monkeypatch.setattr(
        single_frame, "run_tiled", lambda *args, **options: calls.append(1) or run_tiled(*args, **options)
    )
    monkeypatch.setattr(single_frame, "TILE_ABOVE", 32 * 32)
    for side, tile, expected in [(32, None, 0), (40, None, 2), (40, False, 0), (32, True, 2)]:
        calls.clear()
        latents = vaes.encode_layers(vae, [torch.rand(4, side, side)], tile)
        vaes.decode_layers(vae, latents, tile)
        assert len(calls) == expected
    clone = copy.deepcopy(vae)
    clone.enable_tiling()
    calls.clear()
    clone.decode(random_latent(2, 2))
    assert len(calls) == 1


def test_sides_that_are_no_multiple_of_8_match_diffusers(vae, stock, small_tiles):
    """`encode_layers` refuses them, but other code may call the VAE itself."""
    x = torch.rand(1, 4, 1, 100, 90) * 2 - 1
    with torch.no_grad(), single_frame.tiling(vae, True):
        close(vae.encode(x).latent_dist.parameters, stock.encode(x).latent_dist.parameters, 1e-5)


def test_spans_cover_everything_once():
    for cells, tile in [(1, 8), (8, 8), (9, 8), (100, 8), (17, 128)]:
        spans = single_frame._cores(cells, tile)
        assert [i for span in spans for i in range(span.start, span.stop)] == list(range(cells))
        assert max(span.stop - span.start for span in spans) <= tile
