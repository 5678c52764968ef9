"""Compositing, resizing and fitting layers: exact cases, and properties over many sizes and values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from omnialpha.errors import OmniAlphaError
from omnialpha.files.pictures import from_pil, to_pil, to_uint8
from omnialpha.layers import compositing
from omnialpha.layers.compositing import flatten, over, to_linear, to_srgb, trimap
from omnialpha.layers.resizing import Frame, fit_size, resize, resize_plane

side = st.integers(1, 40)
seeds = st.integers(0, 2**32)


def random_layer(height, width, seed=0):
    """Random colours, with alpha often exactly 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.rand(4, height, width, generator=generator)
    layer[3] = (layer[3] * 2 - 0.5).clamp(0, 1)
    return layer


def premultiplied(layer):
    return torch.cat([layer[:3] * layer[3:], layer[3:]])


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


# Compositing


@given(side, side, seeds)
def test_over_is_porter_duff(height, width, seed):
    top, bottom = random_layer(height, width, seed), random_layer(height, width, seed + 1)
    result = over(top, bottom)
    close(premultiplied(result), premultiplied(top) + premultiplied(bottom) * (1 - top[3:]))
    assert result.min() >= 0 and result.max() <= 1


@given(side, side, seeds)
def test_over_is_associative(height, width, seed):
    a, b, c = (random_layer(height, width, seed + i) for i in range(3))
    close(premultiplied(over(over(a, b), c)), premultiplied(over(a, over(b, c))))
    close(premultiplied(flatten([c, b, a])), premultiplied(over(a, over(b, c))))


@given(side, side, seeds)
def test_over_matches_pil(height, width, seed):
    top, bottom = random_layer(height, width, seed), random_layer(height, width, seed + 1)
    theirs = from_pil(Image.alpha_composite(to_pil(bottom), to_pil(top)))
    ours = over(*(from_pil(to_pil(layer)) for layer in (top, bottom)))
    close(premultiplied(ours), premultiplied(theirs), 2.5 / 255)


def test_over_is_exact_where_one_layer_is_alone():
    layer = random_layer(9, 9)
    visible = layer[3:] > 0
    nothing, wall = torch.rand(4, 9, 9), torch.rand(4, 9, 9)
    nothing[3], wall[3] = 0, 1
    shown = torch.where(visible, layer[:3], 0)
    for result in (over(layer, nothing), over(nothing, layer)):
        assert torch.equal(result, torch.cat([shown, layer[3:]])), "hidden colours take no part"
    assert torch.equal(over(wall, layer), wall)


def test_over_survives_the_smallest_alpha():
    faint = torch.full((4, 1, 1), 1e-40)
    assert torch.isfinite(over(faint, faint)).all()


def test_over_colour_and_checkerboard():
    layer = random_layer(20, 20)
    close(compositing.over_colour(layer), layer[:3] * layer[3:] + 1 - layer[3:])
    close(compositing.over_colour(layer, (0, 0, 0)), layer[:3] * layer[3:])
    board = compositing.checkerboard(torch.zeros(4, 20, 20), cell=8)
    assert board.shape == (3, 20, 20) and board.unique().numel() == 2
    assert board[0, 0, 0] == board[0, 7, 7] == board[0, 8, 8] != board[0, 0, 8]
    close(board[:, 7, 7:9].T, torch.tensor([[0.85], [0.65]]).expand(2, 3))  # light grey first, then a darker one
    close(compositing.checkerboard(compositing.opaque(layer[:3])), layer[:3])


def test_opaque_and_grey():
    mask = torch.rand(3, 5)
    grey = compositing.grey_layer(mask)
    assert grey.shape == (4, 3, 5) and grey[3].eq(1).all()
    assert all(torch.equal(grey[i], mask) for i in range(3))


def test_clean_hidden_blackens_what_8_bits_do_not_show():
    alpha = torch.tensor([0, 0.4 / 255, 0.5 / 255, 0.6 / 255, 1.0])
    layer = torch.cat([torch.ones(3, 1, 5), alpha[None, None]])
    clean = compositing.clean_hidden(layer)
    assert clean[:3, 0].tolist() == [[0, 0, 0, 1, 1]] * 3 and torch.equal(clean[3], layer[3])
    hidden = to_uint8(clean)
    assert not hidden[..., :3][hidden[..., 3] == 0].any()


def test_snap_alpha():
    alpha = torch.tensor([0, 5, 5.6, 128, 249.4, 249.6, 255]) / 255
    layer = torch.cat([torch.rand(3, 1, 7), alpha[None, None]])
    snapped = compositing.snap_alpha(layer)
    close(snapped[3, 0] * 255, torch.tensor([0, 0, 5.6, 128, 249.4, 255, 255]))
    assert torch.equal(snapped[:3], layer[:3])


# Trimaps


def test_a_trimaps_band_is_as_wide_as_asked_on_both_sides():
    alpha = (torch.arange(12) >= 6).float().expand(4, 12)
    assert trimap(alpha, 2)[1].tolist() == [0] * 4 + [0.5] * 4 + [1] * 4
    assert torch.equal(trimap(alpha, 0), alpha)
    soft = alpha.clone()
    soft[:, 5] = 0.5
    assert trimap(soft, 1)[1].tolist() == [0] * 4 + [0.5] * 3 + [1] * 5


@given(side, side, seeds, st.integers(0, 6))
def test_trimaps_never_lie(height, width, seed, band):
    alpha = random_layer(height, width, seed)[3]
    result = trimap(alpha, band)
    assert set(result.unique().tolist()) <= {0, 0.5, 1}
    assert (alpha[result == 1] >= 0.998).all() and (alpha[result == 0] <= 0.002).all()
    assert ((trimap(alpha, band + 1) == 0.5) | (result != 0.5)).all(), "a wider band holds the narrower"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_plain_mask_is_sure_up_to_the_border(value):
    assert trimap(torch.full((5, 7), value), 3).eq(value).all()


# Resizing


@given(side, side, side, side, seeds)
def test_hidden_colours_never_bleed(height, width, to_height, to_width, seed):
    """A layer of one visible colour keeps that colour at any size, whatever lies under alpha 0."""
    layer = random_layer(height, width, seed)
    colour = torch.tensor([0.8, 0.3, 0.1])[:, None, None]
    layer[:3] = torch.where(layer[3:] > 0, colour, torch.tensor([0.0, 1.0, 1.0])[:, None, None])
    result = resize(layer, (to_height, to_width))
    assert result.shape == (4, to_height, to_width)
    shown = result[3] > 1 / 255
    close(result[:3, shown], colour[:, 0].expand(3, int(shown.sum())), 1e-3)


@given(side, side, side, side, seeds)
def test_hidden_colours_do_not_matter_at_all(height, width, to_height, to_width, seed):
    layer = random_layer(height, width, seed)
    other = layer.clone()
    other[:3] = torch.where(layer[3:] > 0, layer[:3], 1 - layer[:3])
    if (height, width) != (to_height, to_width):
        assert torch.equal(resize(layer, (to_height, to_width)), resize(other, (to_height, to_width)))


@given(side, side, side, side, seeds)
def test_rounding_decides_no_colour(height, width, to_height, to_width, seed):
    """Two programs that differ in the last digit of a layer show the same colours, also under alpha 0 in 8 bits."""
    layer = random_layer(height, width, seed)
    generator = torch.Generator().manual_seed(seed)
    layer[3] *= 10 ** -torch.randint(0, 9, (height, width), generator=generator)  # also next to nothing
    other = (layer + 1e-6 * torch.randn(layer.shape, generator=generator)).clamp(0, 1)
    if (height, width) != (to_height, to_width):
        one, two = (resize(each, (to_height, to_width)) for each in (layer, other))
        shown = [(each[3] * 255).round() > 0 for each in (one, two)]
        assert not one[:3, ~shown[0]].any() and not two[:3, ~shown[1]].any()
        close(one[:3, shown[0] & shown[1]], two[:3, shown[0] & shown[1]], 0.5 / 255)


@given(side, side, side, side, seeds)
def test_resizing_stays_in_range_and_opaque(height, width, to_height, to_width, seed):
    layer = random_layer(height, width, seed)
    result = resize(layer, (to_height, to_width))
    assert result.min() >= 0 and result.max() <= 1
    opaque = resize(compositing.opaque(layer[:3]), (to_height, to_width))
    assert opaque[3].eq(1).all()
    plane = resize_plane(layer[3], (to_height, to_width))
    assert plane.shape == (to_height, to_width) and plane.min() >= 0 and plane.max() <= 1


@pytest.mark.parametrize("mode", ["scale", "pad"])
def test_what_was_opaque_comes_back_opaque(mode):
    """Exactly, in the core of a cut-out too: a reader that cuts to 8 bits makes 254 of anything less."""
    layer = random_layer(48, 64)
    layer[3] = 0
    layer[3, 8:40, 8:56] = 1
    back = Frame((301, 397), (48, 64), mode).undo(layer)
    assert back[3, 90:210, 90:300].eq(1).all() and back.max() == 1


def test_resizing_to_its_own_size_is_nothing():
    layer = random_layer(7, 9)
    assert resize(layer, (7, 9)) is layer and resize_plane(layer[3], (7, 9)).data_ptr() == layer[3].data_ptr()


def test_resizing_keeps_plain_colours_and_gradients():
    plain = torch.tensor([0.2, 0.4, 0.6, 0.5])[:, None, None].expand(4, 30, 20)
    close(resize(plain, (64, 48)), plain[:, :1, :1].expand(4, 64, 48))
    ramp = compositing.opaque(torch.linspace(0, 1, 64).expand(3, 64, 64))
    close(resize(resize(ramp, (96, 96)), (64, 64)), ramp, 0.01)


def test_shrinking_averages():
    """Without antialiasing a fine pattern would give stripes."""
    lines = compositing.opaque((torch.arange(64) % 2).float().expand(3, 64, 64))
    close(resize(lines, (8, 8))[:3, :, 1:-1], torch.full((3, 8, 6), 0.5), 0.03)


# Fitting


@given(st.integers(1, 10**4), st.integers(1, 10**4), st.sampled_from([(16384, 16), (1024**2, 32), (1024**2 / 3, 32)]))
def test_fitted_sizes(h, w, budget):
    pixels, multiple = budget
    height, width = fit_size(h, w, pixels, multiple)
    assert height % multiple == width % multiple == 0 and min(height, width) >= multiple
    assert height * width <= pixels * 1.5
    ideal = math.sqrt(pixels * h / w)
    if multiple <= ideal and multiple <= pixels / ideal:
        assert abs(height - ideal) <= multiple / 2 + 1e-6 and abs(width - pixels / ideal) <= multiple / 2 + 1e-6


@pytest.mark.parametrize(
    "args, expected",
    [
        ((1000, 1000, 1024**2, 32), (1024, 1024)),
        ((64, 64, 1024**2, 32), (1024, 1024)),
        ((6000, 8000, 1024**2, 32), (896, 1184)),
        ((1, 1, 16384, 16), (128, 128)),
        ((1, 8000, 16384, 16), (16, 1024)),
        ((9, 9, 100, 16), (16, 16)),
    ],
)
def test_fitted_sizes_by_hand(args, expected):
    assert fit_size(*args) == expected


@given(side, side, st.integers(1, 4), st.integers(1, 4), st.sampled_from(["scale", "pad"]), seeds)
def test_undoing_a_fit_returns_to_the_source_size(height, width, rows, columns, mode, seed):
    frame = Frame((height, width), (rows * 16, columns * 16), mode)
    fitted = frame.apply(random_layer(height, width, seed))
    assert fitted.shape == (4, rows * 16, columns * 16)
    assert frame.undo(fitted).shape == (4, height, width)
    assert fitted.min() >= 0 and fitted.max() <= 1


@given(st.integers(20, 40), st.integers(20, 40), st.sampled_from(["scale", "pad"]))
def test_fitting_and_undoing_keeps_the_picture(height, width, mode):
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    picture = torch.stack([y, x, (y + x) / 2, 0.5 + y / 2])
    frame = Frame((height, width), (64, 96), mode)
    close(frame.undo(frame.apply(picture)), picture, 0.03)


def test_padding_centres_and_repeats_the_edges():
    frame = Frame((10, 20), (40, 40), "pad")
    assert (frame.inner, frame.corner) == ((20, 40), (10, 0))
    layer = random_layer(10, 20)
    fitted = frame.apply(layer)
    assert torch.equal(fitted[:, 10:30], resize(layer, (20, 40)))
    assert torch.equal(fitted[:, :10], fitted[:, 10:11].expand(4, 10, 40))
    assert torch.equal(fitted[:, 30:], fitted[:, 29:30].expand(4, 10, 40))


def test_extreme_pictures_fit():
    for source, size in itertools.product([(1, 1), (1, 3000), (3000, 1)], [(16, 1024), (64, 64)]):
        for mode in ("scale", "pad"):
            frame = Frame(source, size, mode)
            assert frame.undo(frame.apply(torch.rand(4, *source))).shape[1:] == source


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: over(torch.zeros(4, 2, 3), torch.zeros(4, 3, 2)), "3x2 over 2x3"),
        (lambda: flatten([]), "no layers"),
        (lambda: compositing.opaque(torch.zeros(4, 2, 2)), r"\[3, height, width\]"),
        (lambda: compositing.grey_layer(torch.zeros(1, 2, 2)), r"\[1, 2, 2\]"),
        (lambda: compositing.clean_hidden(torch.zeros(3, 2, 2)), r"\[3, 2, 2\]"),
        (lambda: compositing.clean_hidden([[0.0]]), "got list"),
        (lambda: compositing.snap_alpha(torch.zeros(4, 2, 2), 250, 5), "low = 250"),
        (lambda: trimap(torch.zeros(2, 2), -1), "-1 pixels"),
        (lambda: resize(torch.zeros(4, 2, 2), (0, 5)), r"\(0, 5\)"),
        (lambda: resize(torch.zeros(4, 2, 2), (5,)), r"\(5,\)"),
        (lambda: fit_size(0, 5, 100, 16), "picture's size"),
        (lambda: Frame((2, 2), (4, 4), "stretch"), "'stretch'"),
        (lambda: Frame((2, 3), (16, 16), "exact"), "3x2 picture cannot be worked on at 16x16"),
        (lambda: Frame((2, 2), (4, 4)).apply(torch.zeros(4, 3, 2)), "2x2 .* got one of 2x3"),
        (lambda: Frame((2, 2), (4, 4)).undo(torch.zeros(4, 2, 2)), "4x4 .* got one of 2x2"),
    ],
)
def test_errors_name_what_was_found(call, words):
    with pytest.raises(OmniAlphaError, match=words):
        call()


def test_linear_light_mixes_light():
    """Half of white over black is half the light, which sRGB writes as 188 of 255 (IEC 61966-2-1)."""
    white, black = torch.ones(4, 1, 1), torch.tensor([0.0, 0, 0, 1])[:, None, None]
    half = torch.tensor([1.0, 1, 1, 0.5])[:, None, None]
    assert round(float(over(half, black, linear_light=True)[0, 0, 0]) * 255) == 188
    assert round(float(over(half, black)[0, 0, 0]) * 255) == 128
    for top in (white, black, torch.tensor([0.3, 0.6, 0.9, 0.0])[:, None, None]):  # nothing to mix, nothing to round
        for bottom in (black, torch.rand(4, 1, 1)):
            assert torch.equal(over(top, bottom, linear_light=True), over(top, bottom))


def test_linear_light_and_back():
    values = torch.arange(256) / 255
    assert torch.allclose(to_srgb(to_linear(values)), values, atol=1e-6)
    assert to_linear(values).diff().min() > 0
