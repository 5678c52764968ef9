"""Losses of the RGBA VAE against what they have to be, and runs of a small one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from making import make_triplets
from safetensors.torch import save_file

from omnialpha.config import read_config
from omnialpha.data.records import read_records
from omnialpha.errors import OmniAlphaError
from omnialpha.train import vae_losses as losses
from omnialpha.train.config import DataPart, VAEConfig
from omnialpha.train.vae import Step, _adversarial, build_vae, open_vae, round_trip, train_vae, weighted_sum
from omnialpha.train.vae_data import Pictures, blend_some, hide_some
from omnialpha.train.vae_measure import measure_vae
from omnialpha.vae import load_vae, single_frame

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_triplets(tmp_path_factory.mktemp("data"), count=4)


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """A small RGB VAE on disk, with its own statistics."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("rgb")
    build_vae(4, channels=3).save_pretrained(folder)
    return folder


def config(dataset, **changes) -> dict:
    return {"data": [{"path": str(dataset)}], "steps": 4, "batch": 2, "base_dim": 12, "sizes": [[32, 32]], "lr": 1e-3,
            "loss": {"expected_composite": 1.0, "kl": 1e-4}, "save_every": 2, "log_every": 1} | changes  # fmt: skip


def read(folder: Path, data: dict) -> VAEConfig:
    path = folder / "vae.yaml"
    path.write_text(yaml.safe_dump(data))
    return read_config(VAEConfig, path)


def posterior(mean: float, variance: float) -> DiagonalGaussianDistribution:
    mean, logvar = torch.full((1, 4, 1, 2, 2), mean), torch.full((1, 4, 1, 2, 2), variance).log()
    return DiagonalGaussianDistribution(torch.cat([mean, logvar], 1))


def test_expected_composite_is_the_mean_over_backgrounds():
    generator = torch.Generator().manual_seed(0)
    decoded, truth = torch.rand(2, 1, 4, 4, 4, generator=generator)
    closed = float(losses.expected_composite(decoded, truth))
    total, draws = 0.0, 4000
    for _ in range(draws):
        background = torch.rand(1, 3, 4, 4, generator=generator)
        error = losses.over_colour(decoded, background) - losses.over_colour(truth, background)
        total += float(error.pow(2).mean()) / draws
    assert closed == pytest.approx(total, rel=0.02) and closed > 0
    assert float(losses.expected_composite(truth, truth)) == 0


def test_expected_composite_by_hand():
    """White at alpha 1 against nothing: d = 1, e = 1, so 1 - 2/2 + 1/3."""
    white, nothing = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)
    assert float(losses.expected_composite(white, nothing)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("loss", [
    losses.expected_composite, lambda a, b: losses.composite_l1(a, b, torch.rand(2, 3, 1, 1)),
    lambda a, b: losses.chroma(a, b, torch.rand(2, 3, 1, 1)),
])  # fmt: skip
def test_hidden_colour_does_not_matter(loss):
    hidden = torch.rand(2, 4, 8, 8)
    hidden[:, 3] = 0
    other = hidden.clone()
    other[:, :3] = 1 - other[:, :3]
    assert abs(float(loss(hidden, other))) < 1e-6


def test_kl_by_hand():
    assert float(losses.kl(posterior(0, 1))) == pytest.approx(0, abs=1e-6)
    assert float(losses.kl(posterior(2, 1))) == pytest.approx(2)
    assert float(losses.reference_kl(posterior(1, 2), posterior(1, 2))) == pytest.approx(0, abs=1e-6)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(1.0, 2**0.5), normal(0.0, 1.0))
    assert float(losses.reference_kl(posterior(1, 2), posterior(0, 1))) == pytest.approx(float(expected), rel=1e-5)


def test_adaptive_weight_is_the_ratio_of_gradients():
    weight = torch.ones(3, requires_grad=True)
    ratio = losses.adaptive_weight((4 * weight).sum(), (2 * weight).sum(), weight)
    assert float(ratio) == pytest.approx(2, rel=1e-4) and not ratio.requires_grad


def test_hinge():
    assert float(losses.hinge_discriminator(torch.tensor([2.0]), torch.tensor([-3.0]))) == 0
    assert float(losses.hinge_discriminator(torch.tensor([0.0]), torch.tensor([0.0]))) == 1


def test_the_adversarial_term_moves_the_decoder_and_not_the_critic():
    torch.manual_seed(0)
    vae, critic = single_frame(build_vae(4)), losses.PatchDiscriminator(8, 2)
    truth = torch.rand(2, 4, 64, 64)
    decoded, own = round_trip(vae, truth)
    step = Step(truth, decoded, own, torch.rand(2, 3, 1, 1))
    total, _ = weighted_sum(step, {"expected_composite": 1.0})
    _adversarial(vae, critic, step, total).backward()
    assert vae.decoder.conv_out.weight.grad.abs().sum() > 0
    assert all(param.grad is None for param in critic.parameters())


def test_reference_kl_is_zero_at_the_start_and_only_for_opaque_pictures(dataset, rgb, tmp_path):
    vae, reference = open_vae(read(tmp_path, config(dataset, rgb=str(rgb), loss={"reference_kl": 1.0})))
    picture = torch.rand(2, 4, 32, 32)
    picture[0, 3] = 1
    decoded, own = round_trip(single_frame(vae), picture)
    step = Step(picture, decoded, own, torch.rand(2, 3, 1, 1), single_frame(reference))
    assert weighted_sum(step, {"reference_kl": 1.0})[1]["reference_kl"] == pytest.approx(0, abs=1e-5)
    assert (decoded[:, 3] == 1).all(), "an opaque start answers alpha 1, whatever comes in"


def test_blending_and_hiding():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(400, 4, 4, 4)
    pictures[:, 3, :2] = 0
    blended = blend_some(pictures, 0.3, generator)
    changed = (blended[:, 3] == 1).flatten(1).all(1)
    assert 0.2 < changed.float().mean() < 0.4 and torch.equal(blended[~changed], pictures[~changed])
    hidden = hide_some(pictures, 1.0, generator)
    assert torch.equal(hidden[:, :, 2:], pictures[:, :, 2:]) and torch.equal(hidden[:, 3], pictures[:, 3])
    assert not torch.equal(hidden[:, :3, :2], pictures[:, :3, :2])


def test_pictures_are_a_function_of_seed_step_and_process(dataset):
    own = VAEConfig((DataPart(str(dataset)),), 1, sizes=((32, 32), (48, 32)), batch=4)
    first, second = Pictures(own), Pictures(own)
    second.batch(0, 0)
    assert torch.equal(first.batch(3, 1), second.batch(3, 1)) and first.batch(3, 1).shape == (4, 4, 48, 32)
    assert not torch.equal(first.batch(3, 1), first.batch(3, 0))


def test_a_run_learns_and_can_be_loaded(dataset, tmp_path):
    data = config(dataset, steps=30, optimizer="muon", loss={"composite_l1": 1.0, "kl": 1e-4, "adversarial": 0.1},
                  discriminator_start=25, sheet_every=30)  # fmt: skip
    train_vae(read(tmp_path, data), tmp_path / "run", say=lambda _: None)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss/composite_l1"] < log[0]["loss/composite_l1"] and "loss/adversarial" in log[-1]
    vae = load_vae(tmp_path / "run/vae")
    assert vae.config.latents_std != [1.0] * 16
    report = measure_vae(vae, read_records(dataset).records, (32, 32))
    assert report["foreground_psnr"] > 5 and 0 <= report["alpha_mse"] < 1 and "composite_psnr" in report
    assert list((tmp_path / "run/sheets").glob("*.png"))


def test_a_frozen_encoder_keeps_its_latents(dataset, tmp_path, rgb):
    train_vae(read(tmp_path, config(dataset, steps=2)), tmp_path / "first", say=lambda _: None)
    data = config(dataset, steps=3, rgba=str(tmp_path / "first/vae"), decoder_only=True)
    train_vae(read(tmp_path, data), tmp_path / "second", say=lambda _: None)
    before, after = (load_vae(tmp_path / name / "vae").state_dict() for name in ("first", "second"))
    for name in before:
        if name.startswith(("encoder", "quant_conv")):
            assert torch.equal(before[name], after[name])
    assert not torch.equal(before["decoder.conv_out.weight"], after["decoder.conv_out.weight"])


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(dataset, tmp_path):
    path = tmp_path / "vae.yaml"
    terms = {"composite_l1": 1.0, "adversarial": 0.5}
    path.write_text(yaml.safe_dump(config(dataset, steps=30, save_every=3, loss=terms, discriminator_start=5)))
    command = [sys.executable, "-m", "omnialpha", "train", "vae", str(path), "--threads", "1", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    started = subprocess.Popen([*command, str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while started.poll() is None and len(list((killed / "state").glob("step-*"))) < 2:
        time.sleep(0.02)
    assert started.poll() is None, "it was still running"
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    for out in (killed, whole):
        subprocess.run([*command, str(out)], cwd=ROOT, check=True, capture_output=True)
    assert (killed / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()


@pytest.mark.parametrize(("change", "words"), [
    ({"loss": {"beauty": 1.0}}, "terms among"), ({"sizes": [[30, 30]]}, "multiples of 8"),
    ({"decoder_only": True}, "an `rgba` VAE"), ({"mix": {"sky": 1.0}}, "shares of foreground"),
    ({"optimiser": "adamw"}, "Did you mean 'optimizer'"),
])  # fmt: skip
def test_bad_settings_teach(dataset, tmp_path, change, words):
    with pytest.raises(OmniAlphaError, match=words):
        read(tmp_path, config(dataset, **change))


def test_too_narrow_a_vae_is_refused(dataset, tmp_path):
    with pytest.raises(OmniAlphaError, match="base_dim: expected 12 or more"):
        open_vae(read(tmp_path, config(dataset, base_dim=4)))


def test_perceptual_weights_have_to_be_vgg(tmp_path):
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(OmniAlphaError, match="is not VGG16's features"):
        losses.Perceptual(tmp_path / "wrong.safetensors")


def test_perceptual_distance_is_zero_for_the_same_picture(tmp_path):
    torch.manual_seed(0)
    tensors, channels, index = {}, 3, 0
    for width in losses.VGG16:
        if width == "M":
            index += 1
            continue
        tensors[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
        tensors[f"features.{index}.bias"] = torch.zeros(width)
        channels, index = width, index + 2
    save_file(tensors, tmp_path / "vgg.safetensors")
    net = losses.Perceptual(tmp_path / "vgg.safetensors")
    a, b = torch.rand(2, 1, 4, 32, 32)
    colours = (torch.rand(1, 3, 1, 1), torch.rand(1, 3, 1, 1))
    assert float(net(a, a, colours)) == 0 and float(net(a, b, colours)) > 0
