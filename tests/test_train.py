"""Parts of training: optimisers, initialisation, schedules, averages, batches of prompts."""

import numpy as np
import pytest
import torch

from omnialpha.model.single_frame import single_frame
from omnialpha.model.text import condition_image, encode_prompt
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.train.muon import Muon, orthogonalise
from omnialpha.train.prompts import CachedPrompts, PromptEncoder
from omnialpha.train.schedule import Average, rate, set_rate
from omnialpha.train.vae.first_weights import start_with_means
from omnialpha.train.vae.train import build_vae


@pytest.fixture(scope="module")
def micro():
    return OmniAlphaPipeline.from_pretrained("micro")


@pytest.mark.parametrize("shape", [(3, 8, 32), (3, 32, 8), (2, 16, 16)])
def test_orthogonalise_flattens_the_spectrum(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape), iterations=6))
    assert values.min() > 0.5 and values.max() < 1.3


def test_muon_fits_a_matrix_and_skips_what_has_no_gradient():
    torch.manual_seed(0)
    goal, weight, idle = torch.randn(8, 6), torch.nn.Parameter(torch.zeros(8, 6)), torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight, idle], lr=0.1, weight_decay=0.0)
    for step in range(100):
        set_rate([optimizer], 1 - step / 100)
        optimizer.zero_grad()
        (weight - goal).pow(2).mean().backward()
        optimizer.step()
    assert (weight - goal).abs().max() < 0.2 * goal.abs().max()
    assert torch.equal(idle.detach(), torch.ones(2, 2))


def test_rate_warms_holds_and_falls():
    assert rate(0, 1000, "linear", warm=100) == 0.01
    assert rate(300, 1000, "linear", hold=0.5) == 1
    assert rate(750, 1000, "linear", hold=0.5) == 0.5
    assert rate(500, 1000, "cosine") == pytest.approx(0.505)
    assert rate(999, 1000, "constant") == 1
    assert rate(999, 1000, "linear") == rate(5000, 1000, "linear") == 0.01


def test_average_swaps_back_and_forth():
    weight = torch.nn.Parameter(torch.zeros(3))
    average = Average([("weight", weight)], decay=0.5)
    with torch.no_grad():
        weight += 1
    average.update()
    average.swap()
    assert 0 < float(weight.detach()[0]) < 1
    average.swap()
    assert torch.equal(weight.detach(), torch.ones(3))


def test_young_averages_forget_faster():
    weight = torch.nn.Parameter(torch.ones(1))
    average = Average([("weight", weight)], decay=0.9)
    expected, kept = 1.0, []
    for step in range(1, 200):
        with torch.no_grad():
            weight.fill_(float(step))
        average.update()
        decay = min(0.9, (1 + step) / (20 + step))  # 2/21 at first, 0.9 from step 170 on
        expected = decay * expected + (1 - decay) * step
        kept.append(decay)
        assert float(average.values["weight"]) == pytest.approx(expected, rel=1e-5)
    assert kept[0] == pytest.approx(2 / 21) and kept[168] < 0.9 == kept[170]


def test_start_with_means_carries_colour_and_alpha():
    torch.manual_seed(0)
    model = single_frame(start_with_means(build_vae()))
    coarse = torch.rand(8, 4, 8, 8) * 2 - 1
    picture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    with torch.no_grad():
        latent = model.encode(picture[:, :, None]).latent_dist.mode()[:, :4, 0]
    means = torch.nn.functional.avg_pool2d(picture, 8)
    for channel in range(4):
        pair = torch.stack([latent[:, channel].flatten(), means[:, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.9


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_prompt_batches_equal_single_prompts(micro, pictures):
    torch.manual_seed(0)
    layers = [torch.rand(4, 96, 80) for _ in range(pictures)]
    seen = [torch.from_numpy(np.stack([np.asarray(condition_image(layer))] * 2)) for layer in layers]
    instructions = ["cut out a dog", "x"]
    with torch.no_grad():
        batch, real = PromptEncoder(micro.text_encoder, micro.tokenizer)(instructions, seen)
    assert real is not None and real.sum(1).tolist() == sorted(real.sum(1).tolist(), reverse=True)
    for row, instruction in enumerate(instructions):
        single = encode_prompt(micro.text_encoder, micro.tokenizer, instruction, layers)[0]
        assert (batch[row, : len(single)] - single).abs().max() < 2e-5


def test_a_frozen_encoder_is_asked_once(micro, tmp_path):
    encoder = PromptEncoder(micro.text_encoder, micro.tokenizer)
    seen = [torch.from_numpy(np.stack([np.asarray(condition_image(torch.rand(4, 64, 64)))] * 2))]
    words = ["cut out a dog", "x"]
    with torch.no_grad():
        wanted, real = encoder(words, seen)
    first, mask = CachedPrompts(encoder, tmp_path)(words, seen)
    assert torch.equal(mask, real)
    assert (first - wanted)[real].abs().max() < 2e-5
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    second, _ = CachedPrompts(None, tmp_path)(words, seen)
    assert torch.equal(first, second), "read from disk, no encoder needed"
