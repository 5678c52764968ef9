"""The measures on cases whose value is known by hand."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnialpha import metrics
from omnialpha.errors import OmniAlphaError
from omnialpha.layers.compositing import flatten, opaque

PLANES = (metrics.sad, metrics.mad, metrics.alpha_mse, metrics.grad, metrics.conn)


def plane(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def noise(*shape, seed=0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_sums_and_means_of_four_pixels():
    found, truth = plane([0, 0.5], [1, 1]), plane([0.25, 0.5], [0, 1])
    assert metrics.sad(found, truth) == 1.25
    assert metrics.mad(found, truth) == 1.25 / 4
    assert metrics.alpha_mse(found, truth) == (0.0625 + 1) / 4
    region = metrics.unknown(plane([0.5, 0], [1, 0.5]))
    assert region.tolist() == [[True, False], [False, True]]
    assert metrics.sad(found, truth, region) == 0.25
    assert metrics.mad(found, truth, region) == 0.125
    assert metrics.alpha_mse(found, truth, region) == 0.03125
    assert all(measure(found, truth, torch.zeros(2, 2, dtype=torch.bool)) == 0 for measure in PLANES)


def test_sad_grows_with_the_pixels_and_mad_does_not():
    small, large = torch.full((4, 4), 0.5), torch.full((8, 8), 0.5)
    assert metrics.sad(large, torch.zeros(8, 8)) == 4 * metrics.sad(small, torch.zeros(4, 4)) == 32
    assert metrics.mad(large, torch.zeros(8, 8)) == metrics.mad(small, torch.zeros(4, 4)) == 0.5


# The nine taps of Grad's kernels, exp(-x^2 / (2 1.4^2)) and x times it.
BELL = [math.exp(-(x**2) / 3.92) for x in range(-4, 5)]
SLOPE = [x * bell for x, bell in zip(range(-4, 5), BELL)]
ACROSS = sum(BELL) / math.sqrt(sum(bell**2 for bell in BELL))  # what smoothing along an edge gives, in unit norm
NORM = math.sqrt(sum(slope**2 for slope in SLOPE))


def test_grad_of_a_step_is_what_the_kernel_says():
    """Against nothing, a step from 0 to 1 gives at distance k the sum of the taps that reach beyond it, squared."""
    step = torch.zeros(5, 20)
    step[:, 10:] = 1
    columns = [sum(SLOPE[max(0, 4 + 10 - column) :]) for column in range(6, 10)]  # the taps with x >= 10 - column
    columns += columns  # and the same beyond the edge
    by_hand = 5 * sum((value * ACROSS / NORM) ** 2 for value in columns)  # five rows
    assert metrics.grad(step, torch.zeros(5, 20)) == pytest.approx(by_hand, rel=1e-9)
    assert metrics.grad(step.T.contiguous(), torch.zeros(20, 5)) == pytest.approx(by_hand, rel=1e-9)
    assert by_hand == pytest.approx(97.95, abs=0.01)


def test_grad_of_a_ramp_is_its_slope():
    ramp = (torch.arange(30, dtype=torch.float64) / 30).expand(6, 30)
    slope = sum(x * tap for x, tap in zip(range(-4, 5), SLOPE)) / NORM * ACROSS / 30
    middle = torch.zeros(6, 30, dtype=torch.bool)
    middle[:, 4:26] = True  # the border goes on flat, and its slope is another
    assert metrics.grad(ramp, torch.zeros_like(ramp), middle) == pytest.approx(6 * 22 * slope**2, rel=1e-6)


@pytest.mark.parametrize(("found", "truth", "value"), [
    # An island that only one plane has: degree 1 - 1 against 1.
    ([1, 1, 0, 0], [1, 1, 0, 1], 1),
    # Both have the island, apart from the source, and agree.
    ([1, 1, 0, 1], [1, 1, 0, 1], 0),
    # At .6 the third pixel belongs to the source up to threshold .6 in both, and the truth goes .4 beyond it.
    ([1, 1, 0.6, 0], [1, 1, 1, 0], 0.4),
    # It loses only .1 of connection, less than theta.
    ([1, 1, 0.9, 0], [1, 1, 1, 0], 0),
    # An island of .5 and of .3: connected up to 0, degrees .5 and .7.
    ([1, 1, 0, 0.5], [1, 1, 0, 0.3], 0.2),
    # No pixel in common at all: nothing is connected beyond 0.
    ([1, 0, 0, 0], [0, 0, 0, 1], 2),
])  # fmt: skip
def test_conn_by_hand(found, truth, value):
    assert metrics.conn(plane(found), plane(truth)) == pytest.approx(value, abs=1e-6)


def test_conn_counts_four_neighbours_and_the_larger_part():
    """Three pixels are the source; one that touches it by a corner alone is an island."""
    both = plane([1, 1, 0], [1, 0, 0], [0, 1, 0])
    without = plane([1, 1, 0], [1, 0, 0], [0, 0, 0])
    assert metrics.conn(both, both) == 0
    assert metrics.conn(both, without) == 1


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), height=st.integers(1, 12), width=st.integers(1, 12))
def test_equal_planes_have_no_error_and_order_does_not_matter(seed, height, width):
    one, other = noise(height, width, seed=seed), noise(height, width, seed=seed + 1)
    for measure in PLANES:
        assert measure(one, one) == 0
        assert measure(one, other) == pytest.approx(measure(other, one)) and measure(one, other) >= 0
        halves = [torch.zeros(height, width, dtype=torch.bool), torch.ones(height, width, dtype=torch.bool)]
        if measure in (metrics.sad, metrics.grad, metrics.conn):
            assert sum(measure(one, other, half) for half in halves) == pytest.approx(measure(one, other))
    assert metrics.soft_iou(one, other) == metrics.soft_iou(other, one) <= metrics.soft_iou(one, one) == 1


def test_two_empty_planes_agree_and_an_empty_one_shares_nothing():
    empty = torch.zeros(3, 4)
    assert metrics.soft_iou(empty, empty) == 1 and metrics.soft_iou(empty, torch.ones(3, 4)) == 0


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_hidden_colour_changes_no_layer_measure(seed):
    truth, found = noise(4, 12, 12, seed=seed), noise(4, 12, 12, seed=seed + 1)
    for layer in (truth, found):
        layer[3, :6] = 0
    painted = truth.clone(), found.clone()
    for layer in painted:
        layer[:3, :6] = noise(3, 6, 12, seed=seed + 2)
    for measure in (metrics.nine_psnr, metrics.nine_ssim, metrics.rgb_l1):
        assert measure(painted[1], painted[0]) == pytest.approx(measure(found, truth))
        assert measure(painted[0], truth) == {"nine_psnr": 100, "nine_ssim": 1, "rgb_l1": 0}[measure.__name__]
    energies = [metrics.energy_score([[found]], [truth]), metrics.energy_score([[painted[1]]], [painted[0]])]
    assert energies[0] == energies[1] > 0 == metrics.energy_score([[painted[0]]], [truth])


def test_the_nine_colours():
    nine = {tuple(colour) for colour in metrics.NINE.tolist()}
    corners = {(r, g, b) for r in (0, 1) for g in (0, 1) for b in (0, 1)}
    assert nine == corners | {(0.5, 0.5, 0.5)} and len(metrics.NINE) == 9


def test_nine_psnr_of_a_hole_by_hand():
    """Red against nothing: over each colour the mean of three squared differences, by hand."""
    red, nothing = torch.tensor([1.0, 0, 0, 1]).view(4, 1, 1).expand(4, 11, 11), torch.zeros(4, 11, 11)
    errors = [1 / 3, 2 / 3, 0.25, 0, 2 / 3, 2 / 3, 1, 1 / 3, 1 / 3]  # black, white, grey, R, G, B, C, M, Y
    by_hand = [100 if error == 0 else -10 * math.log10(error) for error in errors]
    assert metrics.nine_psnr(nothing, red) == pytest.approx(sum(by_hand) / 9)


def test_nine_ssim_is_that_of_nine_pictures():
    from skimage.metrics import structural_similarity

    from omnialpha.layers.compositing import over_colour

    found, truth = noise(4, 16, 13), noise(4, 16, 13, seed=1)
    each = [
        structural_similarity(
            over_colour(found, colour).double().numpy(),
            over_colour(truth, colour).double().numpy(),
            channel_axis=0,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for colour in metrics.NINE.tolist()
    ]
    assert metrics.nine_ssim(found, truth) == pytest.approx(sum(each) / 9)
    with pytest.raises(OmniAlphaError, match="SSIM needs 11 pixels"):
        metrics.nine_ssim(found[:, :10], truth[:, :10])


def test_ssim_needs_its_window_and_no_more():
    layer = torch.rand(4, 11, 12, generator=torch.Generator().manual_seed(0))
    assert metrics.nine_ssim(layer, layer) == pytest.approx(1)
    with pytest.raises(OmniAlphaError, match="11 pixels a side"):
        metrics.nine_ssim(layer[:, :10], layer[:, :10])


def test_rgb_l1_weighs_by_the_true_alpha():
    truth, found = torch.zeros(4, 1, 2), torch.zeros(4, 1, 2)
    truth[3] = plane([1, 0.25])
    found[0] = plane([0.3, 0.9])
    assert metrics.rgb_l1(found, truth) == pytest.approx((0.1 * 1 + 0.3 * 0.25) / 1.25)
    assert metrics.rgb_l1(found, torch.zeros(4, 1, 2)) == 0


def test_recomposition_of_the_layers_themselves_is_exact():
    layers = [opaque(noise(3, 6, 6)), noise(4, 6, 6, seed=1)]
    assert metrics.recomposition_error(layers, flatten(layers)) == 0
    assert metrics.recomposition_error([torch.zeros(4, 6, 6)], opaque(torch.ones(3, 6, 6))) == 0, "white shows through"
    assert metrics.recomposition_error([torch.zeros(4, 6, 6)], opaque(torch.full((3, 6, 6), 0.25))) == 0.75


def test_the_energy_score_rewards_honest_chance():
    """Truth is black or white, half and half: drawing so beats always grey, which beats always black."""
    black, white, grey = (opaque(torch.full((3, 2, 2), value)) for value in (0.0, 1.0, 0.5))

    def expected(*pairs):
        draws = [(one, other, true) for one, other in pairs for true in (black, white)]
        return fmean(metrics.energy_score([[one], [other]], [true]) for one, other, true in draws)

    honest = expected((black, white), (white, black), (black, black), (white, white))
    side = math.sqrt(3 / 4)  # three channels of four differ by 1
    assert honest == pytest.approx(side / 2 - side / 4)
    assert honest < expected((grey, grey)) == pytest.approx(side / 2) == pytest.approx(expected((black, black)))
    assert metrics.energy_score([[grey]], [grey]) == 0


@pytest.mark.parametrize(
    "measure",
    [*PLANES, metrics.soft_iou, metrics.psnr, metrics.nine_psnr, metrics.nine_ssim, metrics.rgb_l1],
    ids=lambda measure: measure.__name__,
)
def test_shapes_have_to_be_equal(measure):
    with pytest.raises(OmniAlphaError, match="shapes must be equal"):
        measure(noise(4, 12, 12), noise(4, 12, 13))


def test_a_region_is_bool_and_as_large():
    for region in (torch.ones(2, 2), torch.ones(3, 2, dtype=torch.bool)):
        with pytest.raises(OmniAlphaError, match=r"A region must be bool \[2, 2\]"):
            metrics.sad(torch.zeros(2, 2), torch.zeros(2, 2), region)
