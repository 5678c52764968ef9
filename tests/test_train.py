"""Training code: optimiser, initialisation, prompt batches, losses, and a run from data to a usable checkpoint."""

import json

import numpy as np
import pytest
import torch

from omnialpha.data.triplets import Composer, ObjectBank
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.tasks import TASKS
from omnialpha.text import condition_image, encode_prompt
from omnialpha.train import latents, transformer, vae
from omnialpha.train.mean_path import start_with_means
from omnialpha.train.muon import Muon, orthogonalise
from omnialpha.train.prompts import PromptEncoder
from omnialpha.train.schedule import Average, set_rate, warm_then_linear
from omnialpha.vae import single_frame


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
    assert warm_then_linear(0, 0.0) == 0.01
    assert warm_then_linear(500, 0.3) == 1
    assert warm_then_linear(500, 0.75) == 0.5
    assert warm_then_linear(500, 1.0) == 0.01


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


def test_start_with_means_carries_colour_and_alpha():
    torch.manual_seed(0)
    model = single_frame(start_with_means(vae.build_vae()))
    coarse = torch.rand(8, 4, 8, 8) * 2 - 1
    picture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    with torch.no_grad():
        latent = model.encode(picture[:, :, None]).latent_dist.mode()[:, :4, 0]
    means = torch.nn.functional.avg_pool2d(picture, 8)
    for channel in range(4):
        pair = torch.stack([latent[:, channel].flatten(), means[:, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.9


def test_kl_is_zero_for_a_standard_normal():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    assert float(vae.kl_divergence(DiagonalGaussianDistribution(torch.zeros(1, 8, 1, 2, 2)))) == 0


def test_perfect_reconstruction_costs_nothing():
    picture = torch.rand(2, 4, 16, 16)
    assert float(vae.reconstruction_loss(picture, picture)) == 0
    hidden = picture.clone()
    hidden[:, 3] = 0
    other = hidden.clone()
    other[:, :3] = 1 - other[:, :3]
    assert float(vae.reconstruction_loss(hidden, other)) < 1e-6, "colour under alpha 0 must not matter"


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


@pytest.fixture(scope="module")
def shards(micro, tmp_path_factory):
    """One small shard for each number of layers, written and read back."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    bank = ObjectBank(rng.integers(0, 255, (2, 128, 128, 4), dtype=np.uint8), ["a cat", "a small dog"])
    composer = Composer(bank, "train", 0)
    for layers in latents.MIX:
        size = latents.layer_sizes(layers)[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(latents, "GRIDS_PER_SHARD", 1)
            patch.setattr(latents, "GRID", 2)
            arrays, names = latents.compose_shard(composer, size, guides=layers > 2)
        metadata = {"layers": str(layers), "names": json.dumps(names)}
        latents.save_file(latents.encode_shard(micro.vae, arrays), folder / f"{layers}.safetensors", metadata=metadata)
    return latents.Shards(folder)


def test_layer_sizes_share_the_budget():
    assert [latents.layer_sizes(layers)[0][0] for layers in (1, 2, 3, 4)] == [128, 96, 80, 64]


def test_shards_pair_objects_with_their_composites(micro, shards):
    tensors, _ = shards.by_layers[2][0]
    batch = shards.draw(2, 8, np.random.default_rng(0))
    for row in range(8):
        place = {
            role: (batch[role][row] == tensors[role].float()).flatten(1).all(1) for role in ("foreground", "composite")
        }
        assert place["foreground"][tensors["pairs"][place["composite"], 0]].any()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_has_a_loss(micro, shards, task):
    torch.manual_seed(0)
    prompts = PromptEncoder(micro.text_encoder, micro.tokenizer)
    batch = shards.draw(len(task.inputs) + len(task.targets), 2, np.random.default_rng(0))
    with torch.no_grad():
        loss = transformer.task_loss(micro.transformer, prompts, task, batch, np.random.default_rng(0))
    assert 0 < float(loss) < 20


def test_weights_cover_all_tasks():
    assert set(transformer.WEIGHTS) == set(TASKS)
    assert transformer.draw_times(1000).min() > 0 and transformer.draw_times(1000).max() < 1


def test_instruction_dropout_and_captions():
    rng = np.random.default_rng(0)
    told = {transformer.instruction_for(TASKS["fg_to_bg"], "a cat", rng) for _ in range(200)}
    assert told == {"", "Draw a background for the object.", "Draw a background for the object. a cat"}
