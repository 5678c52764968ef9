"""Mattes at full size: against dense linear algebra, pymatting, and what plain upscaling does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnialpha.errors import Cancelled, OmniAlphaError
from omnialpha.layers import closed_form, foreground, refining
from omnialpha.layers.compositing import trimap
from omnialpha.layers.foreground import background_colour, foreground_colour
from omnialpha.layers.refining import refine, refine_alpha, seen_size
from omnialpha.layers.resizing import resize, resize_plane
from omnialpha.metrics import alpha_mse, grad


def scene(size: int = 96, soft: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(picture, alpha, foreground): a disc with a notch and a soft rim, on a smooth background of other colours."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    distance = (0.6 - (x**2 + y**2).sqrt()) * size / 2
    distance = torch.minimum(distance, (x.abs() + y * 0.5) * size / 4)
    alpha = (distance / soft + 0.5).clamp(0, 1)
    foreground = torch.stack([0.9 + 0.1 * x, 0.3 + 0.1 * y, 0.1 + 0 * x]).clamp(0, 1)
    background = torch.stack([0.1 + 0 * x, 0.4 + 0.2 * x, 0.8 + 0.1 * y])
    return foreground * alpha + background * (1 - alpha), alpha, foreground


def test_refined_alpha_beats_upscaling():
    picture, alpha, _ = scene()
    coarse = resize_plane(alpha, (24, 24))
    plain, fine = resize_plane(coarse, (96, 96)), refine_alpha(picture, coarse)
    assert alpha_mse(fine, alpha) < 0.2 * alpha_mse(plain, alpha)
    assert grad(fine, alpha) < 0.2 * grad(plain, alpha)


def test_a_matte_that_was_scaled_up_is_as_good():
    """As `run` and the nodes give it: at the picture's size, with the size it was made at."""
    picture, alpha, _ = scene()
    plain = resize_plane(resize_plane(alpha, (24, 24)), (96, 96))
    fine = refine_alpha(picture, plain, (24, 24))
    assert alpha_mse(fine, alpha) < 0.3 * alpha_mse(plain, alpha)


def test_means_of_the_coarse_alpha_are_kept():
    """Each coarse pixel stays, within the weight given to it, the mean of its fine ones."""
    picture, alpha, _ = scene()
    coarse = F.avg_pool2d(alpha[None], 4)[0]
    fine = refine_alpha(picture, coarse)
    again = F.avg_pool2d(fine[None], 4)[0]
    plain = F.avg_pool2d(resize_plane(coarse, (96, 96))[None], 4)[0]
    assert (again - coarse).abs().max() < 0.05 and (again - coarse).abs().mean() < (plain - coarse).abs().mean()


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_shapes(height, width, seed):
    """In [0, 1], never NaN, whatever the ratio of the sizes; sure pixels away from soft ones stay."""
    generator = torch.Generator().manual_seed(seed)
    seen = (int(torch.randint(1, height + 1, (1,), generator=generator)), max(1, width // 3))
    picture, alpha = torch.rand(3, height, width, generator=generator), torch.rand(seen, generator=generator).round()
    layer = refine(picture, alpha)
    assert layer.shape == (4, height, width) and bool(((layer >= 0) & (layer <= 1)).all())
    for level in (0.0, 1.0):
        assert bool((refine_alpha(picture, torch.full(seen, level)) == level).all())


def test_pictures_without_any_texture_are_no_trouble():
    coarse = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    for shade in (0.0, 0.5, 1.0):
        fine = refine_alpha(torch.full((3, 32, 32), shade), coarse)
        assert torch.isfinite(fine).all() and (fine - resize_plane(coarse, (32, 32))).abs().mean() < 0.1


def blurred(alpha: torch.Tensor, width: int) -> torch.Tensor:
    """What a poor model makes of it: soft by `width` pixels."""
    return F.avg_pool2d(alpha[None], width, stride=1, padding=width // 2, count_include_pad=False)[0]


def test_a_trimap_is_kept_to_and_lets_the_picture_decide():
    """Also for a matte as large as the picture; a poor one, since a good one leaves nothing to do."""
    picture, alpha, _ = scene()
    poor, known = blurred(alpha, 11), trimap(alpha, 6)
    fine = refine_alpha(picture, poor, trimap=known)
    assert alpha_mse(fine, alpha) < 0.15 * alpha_mse(torch.where(known == 0.5, poor, known), alpha)
    assert torch.equal(fine[known != 0.5], known[known != 0.5])
    coarse = resize_plane(poor, (24, 24))
    plain = resize_plane(coarse, (96, 96))
    assert alpha_mse(refine_alpha(picture, coarse, trimap=known), alpha) < 0.2 * alpha_mse(plain, alpha)
    assert torch.equal(refine(picture, poor, trimap=known)[3], fine)


def test_with_a_trimap_it_is_closed_form_matting_with_a_hint():
    """Without any weight on the model's alpha, pymatting's closed form."""
    pymatting = pytest.importorskip("pymatting")
    picture, alpha, _ = scene(64)
    picture = (picture + 0.02 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    known = trimap(alpha, 3)
    wanted = pymatting.estimate_alpha_cf(
        picture.permute(1, 2, 0).double().numpy(), known.double().numpy(), laplacian_kwargs={"epsilon": 1e-4}
    )
    weights = closed_form.Weights(1e-4, 1e-9, 3000, torch.float64, 1e-9)
    band = known == 0.5
    start = torch.where(band, blurred(alpha, 11), known)
    found = closed_form.solve(picture, start, band, start, weights)
    assert (found.clamp(0, 1) - torch.from_numpy(wanted)).abs().max() < 4e-4


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_trimap(height, width, seed):
    """All sure, all unknown or noise: in [0, 1], never NaN, and what is sure stays."""
    generator = torch.Generator().manual_seed(seed)
    picture, alpha = torch.rand(3, height, width, generator=generator), torch.rand(height, width, generator=generator)
    for known in (alpha.round(), torch.full_like(alpha, 0.5), (3 * alpha).floor().clamp(max=2) / 2):
        fine = refine_alpha(picture, torch.rand(height, width, generator=generator), trimap=known)
        assert bool(((fine >= 0) & (fine <= 1)).all())
        assert torch.equal(fine[known != 0.5], known[known != 0.5])


def test_flat_pictures_with_a_trimap_are_no_trouble():
    """One colour all over: covariances are 0, and nothing but the hint and smoothness is left."""
    known = torch.full((32, 32), 0.5)
    known[:8], known[-8:] = 1, 0
    fine = refine_alpha(torch.full((3, 32, 32), 0.3), torch.full((32, 32), 0.5), trimap=known)
    assert torch.isfinite(fine).all() and bool((fine[1:] <= fine[:-1] + 1e-3).all())


def test_another_pictures_trimap_is_refused():
    with pytest.raises(OmniAlphaError, match="32x32 and the trimap 16x8"):
        refine_alpha(torch.rand(3, 32, 32), torch.rand(8, 8), trimap=torch.rand(8, 16))


def test_laplacian_is_levins():
    """Against eq. 12 of the paper, written out window by window; at the border windows are cut off."""
    picture = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(1)).double()
    size, height, width = 30, 5, 6
    wanted = np.zeros((size, size))
    for y in range(height):
        for x in range(width):
            near = [
                (b, a) for b in range(y - 1, y + 2) for a in range(x - 1, x + 2) if 0 <= b < height and 0 <= a < width
            ]
            index = [b * width + a for b, a in near]
            colours = np.array([picture[:, b, a].numpy() for b, a in near])
            centred = colours - colours.mean(axis=0)
            n = len(near)
            spread = centred.T @ centred / n + 1e-3 / n * np.eye(3)
            affinity = (1 + centred @ np.linalg.inv(spread) @ centred.T) / n
            wanted[np.ix_(index, index)] += np.eye(n) - affinity
    tiles = closed_form.Tiles(torch.ones(height, width, dtype=torch.bool))
    laplacian = closed_form.Laplacian(picture, tiles, 1e-3, torch.float64)
    found = []
    for row in torch.eye(size).double():
        inside = F.pad(row.reshape(height, width), (0, closed_form.TILE - width, 0, closed_form.TILE - height))
        found.append(laplacian(inside[..., None])[:height, :width].flatten())
    assert np.abs(torch.stack(found).numpy() - wanted).max() < 1e-8


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@example(7, 1, 29, 2, 0)  # 7 * (29 / 7) is more than 29
def test_means_over_cells(rows, columns, height, width, seed):
    """A constant stays one, whole ratios are plain block means, tiles know their part, and spreading is the adjoint."""
    coarse, fine = (min(rows, height), min(columns, width)), (height, width)
    generator = torch.Generator().manual_seed(seed)
    plane = torch.rand(fine, generator=generator, dtype=torch.float64)
    means = closed_form.cell_means
    assert torch.allclose(means(torch.ones_like(plane), coarse), torch.ones(coarse, dtype=torch.float64))
    if all(many % few == 0 for few, many in zip(coarse, fine)):
        blocks = plane.reshape(coarse[0], height // coarse[0], coarse[1], width // coarse[1]).mean(dim=(1, 3))
        assert torch.allclose(means(plane, coarse), blocks)
    region = torch.rand(fine, generator=generator) < 0.01
    region[height // 2, width // 3] = True
    tiles = closed_form.Tiles(region)
    cells = closed_form.Cells(coarse, fine, tiles, plane)
    inside = tiles.inside() * tiles.take(plane)
    found = cells.collect(inside)
    assert torch.allclose(found, means(tiles.put(torch.zeros_like(plane), inside), coarse))
    some = torch.rand(coarse, generator=generator, dtype=torch.float64)
    area = height * width / (coarse[0] * coarse[1])
    assert torch.allclose((found * some).sum() * area, (inside * cells.spread(some, 1.0)).sum())


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_tiles(height, width, seed):
    """They cover their region, are put back where they were, and find each other's pixels."""
    generator = torch.Generator().manual_seed(seed)
    region = torch.rand(height, width, generator=generator) < 0.01
    tiles = closed_form.Tiles(region)
    plane = torch.rand(height, width, generator=generator)
    held = tiles.put(torch.zeros_like(plane), tiles.take(plane))
    assert torch.equal(held[region], plane[region]) and torch.equal(held[held > 0], plane[held > 0])
    flat = F.pad((tiles.take(plane) * tiles.inside()).flatten(), (0, 1))
    beyond = tiles.inside(2) * tiles.take(held, 2)
    assert torch.equal(flat[tiles.neighbours(2)], beyond)


def test_a_large_band_is_solved_in_stretches(monkeypatch):
    """With many more tiles than are solved at once, what all of them together give."""
    picture, alpha, _ = scene(200)
    coarse = resize_plane(alpha, (50, 50))
    whole = refine_alpha(picture, coarse)
    monkeypatch.setattr(closed_form, "MOST", 24)
    monkeypatch.setattr(closed_form, "COMMON", 16)
    assert (refine_alpha(picture, coarse) - whole).abs().mean() < 1e-3


@pytest.mark.parametrize("most", [closed_form.MOST, 12])
def test_a_large_band_is_sought_coarse_to_fine(monkeypatch, most):
    """On three levels, as good as at once, and what is sure in the trimap stays."""
    picture, alpha, _ = scene(199)
    known, poor = trimap(alpha, 12), blurred(alpha, 21)
    whole = refine_alpha(picture, poor, trimap=known)
    monkeypatch.setattr(refining, "MANY", int((known == 0.5).sum()) // 8)
    monkeypatch.setattr(closed_form, "MOST", most)
    monkeypatch.setattr(closed_form, "COMMON", most // 2)
    fine = refine_alpha(picture, poor, trimap=known)
    assert torch.equal(fine[known != 0.5], known[known != 0.5])
    assert alpha_mse(fine, alpha) < 1.1 * alpha_mse(whole, alpha)


def test_refining_is_watched_and_can_be_stopped():
    picture, alpha, _ = scene()
    poor, known = blurred(alpha, 11), trimap(alpha, 6)
    shares = []
    refine(picture, poor, trimap=known, progress=shares.append)
    assert shares == sorted(shares) and 0 <= shares[0] < 0.2 and shares[-1] == 1 and len(shares) > 10
    with pytest.raises(Cancelled):
        refine(picture, poor, trimap=known, progress=lambda done: done < 0.3)


def test_foreground_takes_the_background_out():
    picture, alpha, truth = scene()
    soft = alpha * ((alpha > 0.02) & (alpha < 0.98))
    errors = [
        ((c - truth).abs().mean(dim=0) * soft).sum() / soft.sum() for c in (picture, foreground_colour(picture, alpha))
    ]
    assert errors[1] < 0.15 * errors[0]
    assert torch.equal(foreground_colour(picture, torch.ones_like(alpha)), picture)


def test_colours_of_the_model_help():
    """Where the picture says little, as in glass; and a plain alpha has none to give."""
    picture, alpha, truth = scene(soft=40)
    alpha = alpha * 0.3
    picture = truth * alpha + torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0)) * (1 - alpha)
    coarse = resize(torch.cat([truth, alpha[None]]), (24, 24))
    error = lambda colour: float(((colour - truth).abs().mean(dim=0) * alpha).sum() / alpha.sum())  # noqa: E731
    assert error(foreground_colour(picture, alpha, coarse)) < 0.5 * error(foreground_colour(picture, alpha))
    assert torch.equal(refine(picture, coarse[3])[3], refine(picture, coarse)[3])


@pytest.mark.parametrize("size", [40, 97])
def test_foreground_is_pymattings(size):
    """The paper's authors' own program; it goes over pixels one after the other, ours over all at once."""
    pymatting = pytest.importorskip("pymatting")
    picture, alpha, truth = scene(size, soft=size / 12)
    theirs = pymatting.estimate_foreground_ml(picture.movedim(0, -1).double().numpy(), alpha.double().numpy())
    theirs = torch.from_numpy(theirs).movedim(-1, 0).float()
    ours = foreground_colour(picture, alpha)
    weight = alpha / alpha.sum()
    assert float(((ours - theirs).abs().mean(dim=0) * weight).sum()) < 0.01
    soft = alpha * ((alpha > 0.02) & (alpha < 0.98))
    error = lambda colour: float(((colour - truth).abs().mean(dim=0) * soft).sum() / soft.sum())  # noqa: E731
    assert error(ours) < 1.2 * error(theirs) + 0.002


@settings(max_examples=5)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_tiles_of_soft_pixels_change_nothing(height, width, seed):
    """Colours are those of all pixels swept at once, bit for bit, wherever the object shows."""
    generator = torch.Generator().manual_seed(seed)
    picture, alpha = torch.rand(3, height, width, generator=generator), torch.zeros(height, width)
    alpha[height // 2 :] = 1
    spots = torch.rand(height, width, generator=generator) < 3 / (height * width)
    alpha[spots] = torch.rand(int(spots.sum()), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreground, "TILE", 16)
        tiled = foreground_colour(picture, alpha)
        patch.setattr(foreground, "TILE", 1000)
        levels = foreground._levels
        patch.setattr(foreground, "_levels", lambda size, soft: [(a, b | True, c) for a, b, c in levels(size, soft)])
        shown = alpha > 0
        assert torch.equal(tiled[:, shown], foreground_colour(picture, alpha)[:, shown])
    assert torch.equal(tiled[:, alpha == 1], picture[:, alpha == 1]) and not tiled[:, alpha == 0].any()


def test_a_known_object_leaves_its_background():
    """What is behind the soft parts, by the same method, and the picture where there is nothing in front."""
    picture, alpha, truth = scene(soft=12)
    behind = background_colour(picture, alpha)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    truth = torch.stack([0.1 + 0 * x, 0.4 + 0.2 * x, 0.8 + 0.1 * y])
    soft = (1 - alpha) * ((alpha > 0.02) & (alpha < 0.98))
    error = lambda colour: float(((colour - truth).abs().mean(dim=0) * soft).sum() / soft.sum())  # noqa: E731
    assert error(behind) < 0.15 * error(picture)
    assert torch.equal(behind[:, alpha == 0], picture[:, alpha == 0])


def test_refusals():
    picture, alpha = torch.rand(3, 8, 8), torch.rand(4, 4)
    for call, words in (
        (lambda: refine_alpha(picture, torch.rand(9, 9)), "9x9 and the picture is 8x8"),
        (lambda: refine_alpha(torch.rand(4, 8, 8), alpha), r"\[3, height, width\]"),
        (lambda: refine_alpha(picture, torch.rand(1, 4, 4)), r"\[height, width\]"),
        (lambda: foreground_colour(picture, alpha), "8x8 and the alpha 4x4"),
        (lambda: seen_size((8, 8), 0), "0 pixels"),
    ):
        with pytest.raises(OmniAlphaError, match=words):
            call()
    assert seen_size((1000, 1500), 724) == (483, 724)
