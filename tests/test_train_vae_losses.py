"""Losses of the RGBA VAE against what they have to be, who gets which gradient, and the networks that judge."""

import math

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from omnialpha.errors import OmniAlphaError
from omnialpha.model.single_frame import single_frame
from omnialpha.train.vae import losses
from omnialpha.train.vae.critics import CHANNELS, VGG16, ObjectReader, PatchDiscriminator, Perceptual
from omnialpha.train.vae.terms import TERMS, Step, adversarial, decode, discrimination, round_trip, weighted_sum
from omnialpha.train.vae.train import build_vae, freeze


def posterior(mean: float, variance: float) -> DiagonalGaussianDistribution:
    mean, logvar = torch.full((1, 4, 1, 2, 2), mean), torch.full((1, 4, 1, 2, 2), variance).log()
    return DiagonalGaussianDistribution(torch.cat([mean, logvar], 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_expected_composite_is_the_mean_over_backgrounds(seed):
    """Exactly so for a background that takes a few colours, and never negative."""
    generator = torch.Generator().manual_seed(seed)
    decoded, truth = torch.rand(2, 2, 4, 3, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    colours = torch.rand(7, 3, 1, 1, generator=generator, dtype=torch.float64)
    mean, square = (colours.pow(power).mean(0).flatten().tolist() for power in (1, 2))
    errors = [(losses.over_colour(decoded, c) - losses.over_colour(truth, c)).square().sum(1).mean() for c in colours]
    found = float(losses.expected_composite(decoded, truth, mean, square))
    assert found == pytest.approx(float(sum(errors)) / len(colours), rel=1e-9) and found >= 0
    assert float(losses.expected_composite(decoded.float(), decoded.float())) == 0


def test_expected_composite_by_default_means_uniform_backgrounds():
    generator = torch.Generator().manual_seed(0)
    decoded, truth = torch.rand(2, 1, 4, 4, 4, generator=generator)
    backgrounds = torch.rand(20000, 3, 1, 1, generator=generator)
    error = losses.over_colour(decoded, backgrounds) - losses.over_colour(truth, backgrounds)
    sampled = float(error.square().sum(1).mean())
    assert float(losses.expected_composite(decoded, truth)) == pytest.approx(sampled, rel=0.02)
    white, nothing = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)
    by_hand = 3 * (1 - 2 * 1 / 2 + 1 / 3)  # d = e = 1 in each channel
    assert float(losses.expected_composite(white, nothing)) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    "loss",
    [
        losses.expected_composite,
        lambda a, b: losses.composite_l1(a, b, torch.rand(2, 3, 1, 1)),
        lambda a, b: losses.chroma(a, b, torch.rand(2, 3, 1, 1)),
    ],
)
def test_hidden_colour_does_not_matter(loss):
    hidden = torch.rand(2, 4, 8, 8)
    hidden[:, 3] = 0
    other = hidden.clone()
    other[:, :3] = 1 - other[:, :3]
    assert abs(float(loss(hidden, other))) < 1e-6


def test_composite_l1_and_chroma_by_hand():
    grey, red = torch.full((1, 4, 1, 1), 0.5), torch.tensor([1.0, 0.5, 0.5, 1.0]).view(1, 4, 1, 1)
    grey[:, 3] = 1
    colour = torch.zeros(1, 3, 1, 1)
    # One of three channels is off by 1/2, over every colour; its grey part is 1/6.
    assert float(losses.composite_l1(red, grey, colour)) == pytest.approx(0.5 / 3 + 2 * 0.25 / 3)
    assert float(losses.chroma(red, grey, colour)) == pytest.approx((1 / 3 + 1 / 6 + 1 / 6) / 3)


def test_kl_by_hand():
    assert float(losses.kl(posterior(0, 1))) == pytest.approx(0, abs=1e-6)
    assert float(losses.kl(posterior(2, 1))) == pytest.approx(2)
    assert float(losses.reference_kl(posterior(1, 2), posterior(1, 2))) == pytest.approx(0, abs=1e-6)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(1.0, 2**0.5), normal(-0.5, 0.7**0.5))
    assert float(losses.reference_kl(posterior(1, 2), posterior(-0.5, 0.7))) == pytest.approx(float(expected), rel=1e-5)


def test_adaptive_weight_is_the_ratio_of_gradients():
    weight = torch.ones(3, requires_grad=True)
    ratio = losses.adaptive_weight((4 * weight).sum(), (2 * weight).sum(), weight)
    assert float(ratio) == pytest.approx(2, rel=1e-4) and not ratio.requires_grad
    assert float(losses.adaptive_weight((9 * weight).sum(), (0 * weight).sum(), weight)) == losses.MOST


def test_hinge():
    assert float(losses.hinge_discriminator(torch.tensor([2.0]), torch.tensor([-3.0]))) == 0
    assert float(losses.hinge_discriminator(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0]))) == 1.25
    assert float(losses.hinge_decoder(torch.tensor([1.0, 3.0]))) == -2


# Who gets a gradient


@pytest.fixture
def judged():
    torch.manual_seed(0)
    vae, critic = single_frame(build_vae(4)), PatchDiscriminator(8, 2)
    truth = torch.rand(2, 4, 64, 64)
    decoded, own = round_trip(vae, truth)
    return vae, critic, Step(truth, decoded, own, torch.rand(2, 3, 1, 1))


def test_the_adversarial_term_moves_the_vae_and_not_the_critic(judged):
    vae, critic, step = judged
    total, _ = weighted_sum(step, {"expected_composite": 1.0})
    last = vae.decoder.conv_out.weight
    wanted = torch.autograd.grad(total, last, retain_graph=True)[0].norm()
    adversarial(critic, step, total, last).backward()
    assert float(last.grad.norm()) == pytest.approx(float(wanted), rel=1e-2), "brought to the same size"
    assert vae.encoder.conv_in.weight.grad.abs().sum() > 0
    assert all(param.grad is None and param.requires_grad for param in critic.parameters())


def test_the_critic_learns_without_the_vae(judged):
    vae, critic, step = judged
    discrimination(critic, step).backward()
    assert all(param.grad is not None for param in critic.parameters())
    assert all(param.grad is None for param in vae.parameters())


def test_objects_are_read_off_latents_where_they_are_known():
    torch.manual_seed(0)
    reader = ObjectReader()
    alpha = torch.rand(3, 16, 24)
    alpha[1] = math.nan
    latents = torch.randn(3, 16, 1, 2, 3, requires_grad=True)
    step = Step(alpha[:, None], None, None, None, objects=alpha, latents=latents, reader=reader)
    read = reader(latents)
    wanted = (read[[0, 2]] - alpha[[0, 2]]).square().mean()
    term = TERMS["objects"](step)
    assert read.shape == alpha.shape and torch.allclose(term, wanted)
    term.backward()
    assert latents.grad[0].abs().sum() > 0 == latents.grad[1].abs().sum()
    step.objects = torch.full_like(alpha, math.nan)
    assert TERMS["objects"](step) == 0
    # A latent pixel speaks for its own 8 x 8 pixels alone.
    other = latents.detach().clone()
    other[:, :, :, 0, 0] += 1
    moved = (reader(other) - reader(latents)).abs() > 1e-6
    assert moved[:, :8, :8].any() and not moved[:, 8:].any() and not moved[:, :, 8:].any()


def test_alpha_beyond_one_still_gets_a_gradient():
    """The VAE's own decode clamps, and would leave it there."""
    torch.manual_seed(0)
    vae = single_frame(build_vae(4))
    with torch.no_grad():
        vae.decoder.conv_out.bias[3] = 5
        latent = torch.randn(1, 16, 1, 4, 4)
    decoded = decode(vae, latent)
    assert (decoded[:, 3] > 1).all()
    same = vae.decode(latent).sample[:, :, 0]
    assert torch.allclose((decoded * 2 - 1).clamp(-1, 1), same, atol=1e-6)
    decoded[:, 3].mean().backward()
    assert vae.decoder.conv_out.bias.grad[3] != 0


def test_what_is_trained():
    vae = build_vae(4)
    freeze(vae, decoder_only=False)
    idle = {name for name, param in vae.named_parameters() if not param.requires_grad}
    assert idle and all("time_conv" in name for name in idle), "no single frame meets these"
    freeze(vae, decoder_only=True)
    assert not any(param.requires_grad for param in vae.encoder.parameters())
    assert vae.decoder.conv_in.weight.requires_grad and not vae.quant_conv.weight.requires_grad


# Perceptual weights


def vgg(**more) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors, channels, index = {}, 3, 0
    for width in VGG16:
        if width == "M":
            index += 1
            continue
        tensors[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
        tensors[f"features.{index}.bias"] = torch.zeros(width)
        channels, index = width, index + 2
    return tensors | more


def test_perceptual_weights_have_to_be_vgg(tmp_path):
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(OmniAlphaError, match="is not VGG16's features"):
        Perceptual(tmp_path / "wrong.safetensors")
    save_file(vgg(**{"lin0.weight": torch.ones(1, 64, 1, 1)}), tmp_path / "part.safetensors")
    with pytest.raises(OmniAlphaError, match=r"lin1.weight of shape \[1, 128, 1, 1\], found none"):
        Perceptual(tmp_path / "part.safetensors")


def test_perceptual_distance(tmp_path):
    save_file(vgg(), tmp_path / "vgg.safetensors")
    scales = {f"lin{k}.model.1.weight": torch.full((1, count, 1, 1), 2.0) for k, count in enumerate(CHANNELS)}
    save_file(vgg(**scales), tmp_path / "twice.safetensors")
    net, twice = Perceptual(tmp_path / "vgg.safetensors"), Perceptual(tmp_path / "twice.safetensors")
    a, b = torch.rand(2, 1, 4, 32, 32)
    colours = (torch.rand(1, 3, 1, 1), torch.rand(1, 3, 1, 1))
    distance = float(net(a, b, colours))
    assert float(net(a, a, colours)) == 0 < distance
    assert float(twice(a, b, colours)) == pytest.approx(2 * distance, rel=1e-5)
    assert not any(param.requires_grad for param in net.parameters())
