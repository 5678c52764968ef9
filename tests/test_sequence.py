"""Packing against diffusers' own, and how a sequence is fitted to a checkpoint and undone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnialpha.errors import OmniAlphaError
from omnialpha.layers.sequence import LayerSequence
from omnialpha.model.tokens import pack, patchify, unpack, unpatchify

PUBLIC = (1024**2, 32)
MICRO = (16384, 16)
even = st.integers(1, 6).map(lambda half: half * 2)


def blank(height, width):
    return torch.zeros(4, height, width)


def test_packing_equals_diffusers():
    from diffusers import QwenImageEditPlusPipeline, QwenImageLayeredPipeline

    targets, inputs = torch.randn(2, 16, 3, 8, 12), [torch.randn(2, 16, 8, 12), torch.randn(2, 16, 4, 6)]
    tokens, shapes = pack(targets, inputs)
    assert shapes == [[(1, 4, 6)] * 4 + [(1, 2, 3)]] * 2

    stacked = targets.movedim(2, 1).contiguous()
    layered = QwenImageLayeredPipeline._pack_latents(stacked, 2, 16, 8, 12, 3)
    single = QwenImageEditPlusPipeline._pack_latents
    assert torch.equal(tokens[:, :72], layered)
    assert torch.equal(tokens[:, 72:96], single(inputs[0], 2, 16, 8, 12))
    assert torch.equal(tokens[:, 96:], single(inputs[1], 2, 16, 4, 6))

    assert torch.equal(unpack(tokens, 3, 8, 12), targets)
    theirs = QwenImageEditPlusPipeline._unpack_latents(tokens[:, 72:96], 64, 96, 8)
    assert torch.equal(unpatchify(tokens[:, 72:96], 8, 12), theirs[:, :, 0])


def test_a_token_is_channel_row_column():
    latent = torch.arange(2 * 2 * 4).reshape(2, 2, 4)
    assert patchify(latent)[1].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 4), even, even)
def test_patches_round_trip(lead, channels, h, w):
    latent = torch.rand(*lead, channels, h, w)
    tokens = patchify(latent)
    assert tokens.shape == (*lead, h * w // 4, 4 * channels)
    assert torch.equal(unpatchify(tokens, h, w), latent)


@given(st.integers(1, 2), st.integers(1, 4), even, even, st.lists(st.tuples(even, even), max_size=3))
def test_packs_round_trip(batch, m, h, w, sizes):
    targets = torch.rand(batch, 16, m, h, w)
    tokens, shapes = pack(targets, [torch.rand(batch, 16, *size) for size in sizes])
    assert tokens.shape == (batch, sum(a * b for _, a, b in shapes[0]), 64)
    assert torch.equal(unpack(tokens, m, h, w), targets)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: patchify(torch.zeros(16, 3, 4)), "3x4"),
        (lambda: unpatchify(torch.zeros(5, 64), 4, 4), "5 tokens"),
        (lambda: unpack(torch.zeros(1, 5, 64), 2, 4, 4), "need 8 tokens, got 5"),
        (lambda: pack(torch.zeros(1, 16, 1, 4, 4), [torch.zeros(1, 16, 4, 5)]), "4x5"),
    ],
)
def test_odd_latents_are_refused(call, words):
    with pytest.raises(OmniAlphaError, match=words):
        call()


def test_the_budget_is_shared_by_all_layers():
    sequence = LayerSequence([blank(1000, 1000)] * 2, targets=2).fitted(*PUBLIC)
    assert sequence.size == (512, 512) and sequence.targets == 2
    assert [tuple(layer.shape) for layer in sequence.inputs] == [(4, 512, 512)] * 2


@pytest.mark.parametrize("layers, side", [(1, 128), (2, 96), (3, 80), (4, 64)])
def test_micro_sizes(layers, side):
    assert LayerSequence([], targets=layers).fitted(*MICRO).size == (side, side)
    assert LayerSequence([blank(50, 50)], targets=layers - 1 or 1).fitted(*MICRO).size[0] in (side, 96)


def test_each_input_keeps_its_own_aspect_and_targets_follow_the_first():
    sequence = LayerSequence([blank(300, 600), blank(600, 300)], targets=1).fitted(*PUBLIC)
    assert sequence.size == (416, 832)
    assert [tuple(layer.shape[1:]) for layer in sequence.inputs] == [(416, 832), (832, 416)]
    assert sequence.frame.source == (300, 600)


def test_an_explicit_size_goes_to_inputs_as_large_as_the_first():
    layers = [blank(300, 600), blank(100, 100), blank(300, 600)]
    sequence = LayerSequence(layers, targets=1, size=(250, 510)).fitted(*PUBLIC)
    assert sequence.size == (256, 512)
    assert [tuple(layer.shape[1:]) for layer in sequence.inputs] == [(256, 512), (512, 512), (256, 512)]
    assert sequence.frame.source == (300, 600), "results go back to the picture that went in"


def test_without_inputs_results_have_the_size_that_was_asked_for():
    sequence = LayerSequence([], targets=2, size=(300, 500)).fitted(*PUBLIC)
    assert sequence.size == (288, 512)
    restored = sequence.restore([torch.rand(4, 288, 512)] * 2)
    assert [tuple(layer.shape) for layer in restored] == [(4, 300, 500)] * 2
    square = LayerSequence([], targets=1).fitted(*PUBLIC)
    assert square.size == square.frame.source == (1024, 1024)


def test_exact_takes_pictures_as_they_are():
    layer = torch.rand(4, 64, 96)
    sequence = LayerSequence([layer], targets=1, fit="exact").fitted(*PUBLIC)
    assert sequence.size == (64, 96) and sequence.inputs[0] is layer
    with pytest.raises(OmniAlphaError, match=r"multiples of 32; a picture is 100x64 .* 96x64"):
        LayerSequence([blank(64, 100)], targets=1, fit="exact").fitted(*PUBLIC)
    with pytest.raises(OmniAlphaError, match="64x64 picture cannot be worked on at 96x96"):
        LayerSequence([blank(64, 64)], targets=1, size=(96, 96), fit="exact").fitted(*PUBLIC)


@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=3),
    st.integers(1, 4),
    st.sampled_from(["scale", "pad"]),
    st.none() | st.tuples(st.integers(1, 150), st.integers(1, 150)),
)
def test_fit_then_restore_returns_to_the_source_frame(sizes, targets, fit, size):
    sequence = LayerSequence([torch.rand(4, *one) for one in sizes], targets, size, fit).fitted(*MICRO)
    sides = [side for layer in sequence.inputs for side in layer.shape[1:]]
    assert all(side % 16 == 0 for side in [*sequence.size, *sides])
    restored = sequence.restore([torch.rand(4, *sequence.size)] * targets)
    assert [tuple(layer.shape[1:]) for layer in restored] == [sizes[0]] * targets
    assert sequence.inputs[0].shape[1:] == sequence.size


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LayerSequence([], targets=0), "at least 1 layer"),
        (lambda: LayerSequence([], fit="crop"), "'crop'"),
        (lambda: LayerSequence([], size=(0, 64)), "at least 1 each"),
        (lambda: LayerSequence([], size=(64.5, 64)), "whole pixels"),
        (lambda: LayerSequence([torch.zeros(3, 8, 8)]), r"Input layer 1 .*\[3, 8, 8\]"),
        (lambda: LayerSequence([torch.zeros(4, 8, 8), torch.zeros(4, 0, 8)]), "Input layer 2"),
        (lambda: LayerSequence([torch.zeros(4, 8, 8, dtype=torch.uint8)]), "uint8"),
        (lambda: LayerSequence([torch.full((4, 8, 8), math.nan)]), "Input layer 1 holds NaN"),
    ],
)
def test_bad_sequences_are_named(make, words):
    with pytest.raises(OmniAlphaError, match=words):
        make()
