"""Training the RGBA VAE: its starts, its pictures, runs of a small one, and what a user can get wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from making import edit_records, make_triplets

from omnialpha.cli.main import main
from omnialpha.config import read_config
from omnialpha.data.examples import read_rgba, to_layer
from omnialpha.data.records import read_records
from omnialpha.errors import OmniAlphaError
from omnialpha.model.single_frame import single_frame
from omnialpha.model.vae import load_vae
from omnialpha.train.config import DataPart
from omnialpha.train.vae.config import VAEConfig
from omnialpha.train.vae.measure import measure_vae
from omnialpha.train.vae.pictures import Pictures, blend_some, cover, draw_window, hide_some
from omnialpha.train.vae.terms import Step, encode, round_trip, weighted_sum
from omnialpha.train.vae.train import build_vae, open_vae, train_vae

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four triplets, one of them held out."""
    folder = make_triplets(tmp_path_factory.mktemp("data"), count=4)
    edit_records(folder, lambda records: records[0].update(split="test"))
    return folder


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """A small RGB VAE on disk."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("rgb")
    build_vae(4, channels=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def first_run(dataset, tmp_path_factory):
    """A run from nothing with every option that a small one can have, done once for several tests."""
    folder = tmp_path_factory.mktemp("first")
    data = config(
        dataset,
        steps=24,
        optimizer="muon",
        held_out=str(dataset),
        sheet_every=24,
        accumulate=2,
        workers=1,
        loss={"composite_l1": 1.0, "kl": 1e-4, "adversarial": 0.1, "objects": 1.0},
        batch=4,
        decoded=0.5,
        critic={"start": 20, "width": 8, "layers": 2},
    )
    said = []
    train_vae(read(folder, data), folder / "run", say=said.append)
    return folder / "run", said


def config(dataset, **changes) -> dict:
    return {
        "data": [{"path": str(dataset), "split": None}],
        "steps": 4,
        "batch": 2,
        "base_dim": 12,
        "lr": 1e-3,
        "warm": 1,
        "sizes": [[32, 32]],
        "loss": {"expected_composite": 1.0, "kl": 1e-4},
        "save_every": 2,
        "log_every": 1,
    } | changes


def read(folder: Path, data: dict) -> VAEConfig:
    path = folder / "vae.yaml"
    path.write_text(yaml.safe_dump(data))
    return read_config(VAEConfig, path)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


# Starts


def test_an_opaque_start_is_the_rgb_vae(dataset, rgb, tmp_path):
    own = read(tmp_path, config(dataset, rgb=str(rgb), loss={"expected_composite": 1.0, "reference_kl": 1.0}))
    vae, reference = open_vae(own)
    picture = torch.rand(2, 4, 32, 32)
    decoded, moments = round_trip(vae, picture)
    assert (decoded[:, 3] == 1).all(), "alpha 1, whatever comes in"
    from diffusers import AutoencoderKLQwenImage

    coloured, its = round_trip(single_frame(AutoencoderKLQwenImage.from_pretrained(rgb)), picture)
    assert torch.allclose(coloured, decoded, atol=1e-5) and torch.equal(its.mean, moments.mean)
    step = Step(picture, decoded, moments, torch.rand(2, 3, 1, 1), reference=reference)
    assert weighted_sum(step, own.loss)[1]["reference_kl"] == 0, "none of the two is opaque"
    picture[0, 3] = 1
    assert weighted_sum(step, own.loss)[1]["reference_kl"] == pytest.approx(0, abs=1e-5)
    step.posterior = encode(vae, 1 - picture)
    assert weighted_sum(step, own.loss)[1]["reference_kl"] > 1e-4


def test_an_opaque_start_learns_alpha(dataset, rgb, tmp_path):
    data = config(
        dataset,
        rgb=str(rgb),
        steps=40,
        optimizer="muon",
        lr=3e-3,
        blend=0.0,
        mix={"foreground": 1},
        held_out=str(dataset),
        loss={"expected_composite": 1.0, "reference_kl": 1e-4},
    )
    train_vae(read(tmp_path, data), tmp_path / "run", say=lambda _: None)
    found = json.loads((tmp_path / "run/training.json").read_text())["held_out"]
    before, after = (found[when]["32x32"]["alpha_mse"] for when in ("before", "after"))
    assert after < 0.6 * before


@pytest.mark.parametrize("channels", [3, 4])
def test_a_vae_from_nothing_carries_its_channels(channels):
    torch.manual_seed(0)
    from omnialpha.train.vae.first_weights import start_with_means

    vae = single_frame(start_with_means(build_vae(12, channels)))
    coarse = torch.nn.functional.interpolate(torch.rand(4, 4, 4, 4), size=(32, 32), mode="bilinear")
    with torch.no_grad():
        decoded, moments = round_trip(vae, coarse)
    means = torch.nn.functional.avg_pool2d(coarse, 8)
    for channel in range(channels):
        latent = moments.mean[:, channel, 0].flatten()
        assert torch.corrcoef(torch.stack([latent, means[:, channel].flatten()]))[0, 1] > 0.9
        pair = torch.stack([decoded[:, channel].flatten(), coarse[:, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.5


# Data


def test_blending_and_hiding():
    rng = np.random.default_rng(0)
    pictures = torch.rand(400, 4, 4, 4)
    pictures[:, 3, :2] = 0
    blended = blend_some(pictures, 0.3, rng)
    changed = (blended[:, 3] == 1).flatten(1).all(1)
    assert 0.2 < changed.float().mean() < 0.4 and torch.equal(blended[~changed], pictures[~changed])
    index = int(changed.nonzero()[0])
    under = blended[index, :3, 0, 0]  # alpha 0: the colour itself
    wanted = pictures[index, :3] * pictures[index, 3] + under[:, None, None] * (1 - pictures[index, 3])
    assert torch.allclose(blended[index, :3], wanted)
    hidden = hide_some(pictures, 1.0, rng)
    assert torch.equal(hidden[:, :, 2:], pictures[:, :, 2:]) and torch.equal(hidden[:, 3], pictures[:, 3])
    assert not torch.equal(hidden[:, :3, :2], pictures[:, :3, :2])


def test_pictures_are_cropped_and_not_stretched():
    wide = torch.ones(4, 32, 96)
    wide[:3, :, 48:] = 0
    middle = cover(wide, (16, 16))
    assert middle.shape == (4, 16, 16)
    assert (middle[0, :, :7] > 0.99).all() and (middle[0, :, 9:] < 0.01).all(), "half white, half black"
    windows = [draw_window((32, 64), (32, 32), np.random.default_rng(seed)) for seed in range(8)]
    lefts = {float(cover(wide, (32, 32), window)[0].mean()) for window in windows}
    assert len(lefts) > 2


def test_pictures_are_a_function_of_seed_number_and_process(dataset):
    own = VAEConfig((DataPart(str(dataset), split=None),), 1, sizes=((32, 32), (48, 32)), batch=4)
    first, second, other = Pictures(own), Pictures(own), Pictures(own, process=1)
    _ = second[0]
    assert torch.equal(first[3].truth, second[3].truth) and first[3].truth.shape == (4, 4, 48, 32)
    assert not torch.equal(first[3].truth, other[3].truth)
    ahead = VAEConfig((DataPart(str(dataset), split=None),), 1, sizes=own.sizes, batch=4, workers=1)
    for plain, read_ahead in zip(first.batches(range(2, 4)), Pictures(ahead).batches(range(2, 4))):
        assert torch.equal(plain.shown, read_ahead.shown) and torch.equal(plain.truth, read_ahead.truth)


def test_pictures_say_where_their_object_is(dataset):
    """The same window of the foreground's alpha as of the picture."""
    settings = {"sizes": ((32, 32),), "batch": 4, "hidden": 0.0, "blend": 0.0}
    loss = {"composite_l1": 1.0, "objects": 1.0}
    one = (DataPart(str(dataset), split="test"),)
    for role in ("foreground", "background", "guide"):
        drawn = Pictures(VAEConfig(one, 1, mix={role: 1.0}, loss=loss, **settings))[0]
        wanted = {"foreground": drawn.truth[:, 3], "background": torch.zeros(4, 32, 32)}.get(role)
        assert drawn.objects.isnan().all() if wanted is None else torch.equal(drawn.objects, wanted)
    drawn = Pictures(VAEConfig(one, 1, mix={"composite": 1.0}, loss=loss, **settings))[0]
    whole = to_layer(read_rgba(read_records(dataset).of_split("test")[0].pictures["foreground"]))
    windows = [cover(whole, (32, 32), (0, 0))[3]] * 4  # a square picture, halved, has one window only
    assert torch.allclose(drawn.objects, torch.stack(windows)) and 0.05 < drawn.objects.mean() < 0.95
    unasked = Pictures(VAEConfig(one, 1, mix={"composite": 1.0}, **settings))[0]
    assert unasked.objects.isnan().all() and torch.equal(unasked.truth, drawn.truth), "the same pictures either way"


def test_unreadable_pictures_are_named_and_replaced(tmp_path, caplog):
    dataset = make_triplets(tmp_path, count=4)
    broken = next((dataset / "foreground").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    own = VAEConfig((DataPart(str(dataset)),), 1, sizes=((32, 32),), batch=16, mix={"foreground": 1.0})
    drawn = next(Pictures(own).batches(range(1)))
    assert drawn.truth.shape == (16, 4, 32, 32) and drawn.broken
    assert "skipped" in caplog.text and broken.name in caplog.text
    for path in (dataset / "foreground").glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(OmniAlphaError, match="20 pictures in a row cannot be read"):
        Pictures(own)[0]


# Runs


def test_a_run_learns_and_can_be_loaded(first_run, dataset):
    run, said = first_run
    log = lines(run)
    for term in ("loss/composite_l1", "loss/objects"):
        first, last = (sum(line[term] for line in part) for part in (log[:8], log[-8:]))
        assert last < first, term
    assert "loss/adversarial" not in log[19] and {"loss/adversarial", "loss/critic", "norm"} <= set(log[20])
    vae = load_vae(run / "vae")
    assert vae.config.latents_std != [1.0] * 16 and max(map(abs, vae.config.latents_mean)) > 0
    found = json.loads((run / "training.json").read_text())
    assert found["config"]["steps"] == 24 and "before, 32x32 pixels: colour_psnr" in said[0]
    report = measure_vae(vae, read_records(dataset).of_split("test"), (32, 32))
    assert report == pytest.approx(found["held_out"]["after"]["32x32"], rel=1e-3)
    assert report["nine_psnr"] > 5 and 0 < report["alpha_mse"] < 1 and "opaque_psnr" in report
    assert list((run / "sheets").glob("*.png"))


def test_a_finished_run_stays_as_it_is(first_run, dataset):
    run, _ = first_run
    before = (run / "vae/diffusion_pytorch_model.safetensors").read_bytes()
    train_vae(read_config(VAEConfig, run.parent / "vae.yaml"), run, say=lambda _: None)
    assert (run / "vae/diffusion_pytorch_model.safetensors").read_bytes() == before


def test_measuring_on_the_command_line(first_run, dataset, rgb, tmp_path, capsys):
    run, _ = first_run
    command = ["train", "measure-vae", str(run / "vae"), "--data", str(dataset), "--size", "32"]
    assert main([*command, "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"32x32"} and "alpha_mse" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "found.json")]) == 2, "nothing is overwritten"
    assert main(["train", "measure-vae", str(rgb), "--data", str(dataset), "--size", "32"]) == 0
    assert main(["train", "measure-vae", str(rgb), "--data", str(dataset), "--size", "30"]) == 2
    assert main(["train", "measure-vae", str(tmp_path), "--data", str(dataset)]) == 2


def test_measuring_tells_colour_from_alpha(dataset):
    """An RGB VAE that loses nothing still answers alpha 1."""

    class Perfect(torch.nn.Module):
        def __init__(self, opaque: bool):
            super().__init__()
            self.opaque, self.idle = opaque, torch.nn.Parameter(torch.zeros(1))
            self.encoder, self.decoder = torch.nn.Module(), self._decode
            self.encoder.conv_in = torch.nn.Conv3d(4, 1, 1)
            self.post_quant_conv = torch.nn.Identity()

        def encode(self, x):
            from types import SimpleNamespace

            return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(torch.cat([x, torch.zeros_like(x)], 1)))

        def _decode(self, x):
            return torch.cat([x[:, :3], torch.ones_like(x[:, 3:])], 1) if self.opaque else x

    records = read_records(dataset).records
    perfect, opaque = (measure_vae(Perfect(flag), records, (32, 32)) for flag in (False, True))
    assert perfect["nine_psnr"] == perfect["opaque_psnr"] == pytest.approx(100) and perfect["alpha_mse"] < 1e-12
    assert opaque["colour_psnr"] == pytest.approx(100) and opaque["opaque_alpha_mae"] == 0
    assert opaque["alpha_mse"] > 0.1 and opaque["white_psnr"] < 20


def test_a_frozen_encoder_keeps_its_latents(first_run, dataset, tmp_path):
    run, _ = first_run
    data = config(dataset, steps=3, rgba=str(run / "vae"), decoder_only=True)
    train_vae(read(tmp_path, data), tmp_path / "second", say=lambda _: None)
    first, second = load_vae(run / "vae"), load_vae(tmp_path / "second/vae")
    assert first.config.latents_std == second.config.latents_std
    before, after = first.state_dict(), second.state_dict()
    for name in before:
        if name.startswith(("encoder", "quant_conv")):
            assert torch.equal(before[name], after[name])
    assert not torch.equal(before["decoder.conv_out.weight"], after["decoder.conv_out.weight"])


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(dataset, tmp_path):
    path = tmp_path / "vae.yaml"
    path.write_text(
        yaml.safe_dump(
            config(
                dataset,
                steps=30,
                save_every=3,
                log_every=2,
                loss={"composite_l1": 1.0, "kl": 1e-4, "adversarial": 0.5},
                critic={"start": 5, "width": 8, "layers": 2},
                optimizer="muon",
                held_out=str(dataset),
            )
        )
    )
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
    for name in ("vae/diffusion_pytorch_model.safetensors", "vae/config.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert json.loads((killed / "training.json").read_text()) == json.loads((whole / "training.json").read_text())


def test_divergence_stops_before_the_weights_are_spoiled(dataset, tmp_path):
    data = config(dataset, steps=6, lr=1e30, clip=1e30, save_every=1)
    with pytest.raises(OmniAlphaError, match="has diverged"):
        train_vae(read(tmp_path, data), tmp_path / "run", say=lambda _: None)


# What a user can get wrong


@pytest.mark.parametrize(("change", "words"), [
    ({"loss": {"beauty": 1.0}}, "terms among"), ({"sizes": [[30, 30]]}, "multiples of 8"),
    ({"decoder_only": True}, "an `rgba` VAE"), ({"mix": {"sky": 1.0}}, "shares of foreground"),
    ({"optimiser": "adamw"}, "Did you mean 'optimizer'"), ({"base_dim": 4}, "base_dim: expected 12 or more"),
    ({"loss": {"kl": 1.0}}, "compares no pictures"), ({"rgb": "a", "rgba": "b"}, "only one of rgb and rgba"),
    ({"channels": 3}, "1 for an RGB VAE"), ({"critic": {"width": 12}}, "multiple of 8"),
    ({"background": {"mean": [0.5] * 3, "square": [0.1] * 3}}, "no colour in"), ({"data": []}, "one data set or more"),
])  # fmt: skip
def test_bad_settings_teach(dataset, tmp_path, change, words):
    with pytest.raises(OmniAlphaError, match=words):
        read(tmp_path, config(dataset, **change))


def test_bad_inputs_are_refused_before_any_step(dataset, first_run, tmp_path):
    run, _ = first_run
    for change, words in [
        ({"data": [{"path": str(tmp_path / "nothing")}]}, "does not exist"),
        ({"rgb": str(tmp_path / "nothing")}, "nothing"),
        ({"rgb": str(run / "vae")}, "is an RGBA VAE already"),
        ({"held_out": str(tmp_path / "nothing")}, "does not exist"),
        ({"perceptual": str(tmp_path / "nothing.safetensors")}, "nothing.safetensors"),
    ]:
        with pytest.raises(OmniAlphaError, match=words):
            train_vae(read(tmp_path, config(dataset, **change)), tmp_path / "run", say=lambda _: None)
        assert not (tmp_path / "run").exists()


def test_terms_without_what_they_need_are_left_out_loudly(dataset, tmp_path):
    said = []
    data = config(dataset, steps=1, loss={"expected_composite": 1.0, "perceptual": 1.0, "reference_kl": 1.0})
    train_vae(read(tmp_path, data), tmp_path / "run", say=said.append)
    assert "perceptual is left out" in said[0] and "reference_kl is left out" in said[1]
    assert not {"loss/perceptual", "loss/reference_kl"} & set(lines(tmp_path / "run")[0])
