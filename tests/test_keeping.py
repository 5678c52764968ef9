"""The picture's own pixels: exact where they show, fitted where they do not, and layers that recompose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnialpha.errors import Cancelled, OmniAlphaError
from omnialpha.layers.changes import changed, difference, fitted, patch_weight, spread_out
from omnialpha.layers.compositing import clean_hidden, flatten, over, trimap
from omnialpha.layers.keeping import keep_pixels, least_share, matte_trimap
from omnialpha.layers.regions import filled, grow, reached, shrink
from omnialpha.layers.resizing import resize
from omnialpha.metrics import alpha_mse, nine_psnr
from omnialpha.tasks import TASKS

SIZE, SEEN = (96, 96), (24, 24)


def grid(size: tuple[int, int] = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")


def background() -> torch.Tensor:
    y, x = grid()
    texture = 0.02 * torch.sin(40 * x) * torch.cos(35 * y)
    colour = torch.stack([0.2 + 0.1 * x, 0.5 + 0.2 * y, 0.7 - 0.1 * x]) + texture
    return torch.cat([colour, torch.ones(1, *SIZE)])


def disc(soft: float = 3.0) -> torch.Tensor:
    y, x = grid()
    alpha = ((0.5 - (x**2 + y**2).sqrt()) * 48 / soft + 0.5).clamp(0, 1)
    colour = torch.stack([0.9 - 0.05 * x, 0.3 + 0.1 * torch.sin(20 * x), 0.1 + 0.05 * y])
    return torch.cat([colour, alpha[None]])


def drawn(layer: torch.Tensor, tint: float = 0.05) -> torch.Tensor:
    """As a model gives it back: soft, and of other hues."""
    soft = resize(resize(layer, SEEN), SIZE)
    return torch.cat([(soft[:3] + layer.new_tensor([tint, -tint, tint])[:, None, None]).clamp(0, 1), soft[3:]])


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(picture, background, object)."""
    return over(disc(), background()), background(), disc()


def answers(task: str) -> list[torch.Tensor]:
    return [drawn(background() if role == "background" else disc()) for role in TASKS[task].targets]


def run(task: str, **options) -> list[torch.Tensor]:
    picture, _, object_ = scene()
    guides = {"mask": (object_[3] > 0.5).float(), "trimap": trimap(object_[3], 4), "coarse_mask": grid()[1].abs() < 0.7}
    guide = guides.get(TASKS[task].guide_role)
    guide = guide if guide is None else guide.float()
    options = {"guide": guide, "round_trip": drawn(picture)} | options
    return keep_pixels(TASKS[task], picture, options.pop("layers", answers(task)), SEEN, **options)


@pytest.mark.parametrize("task", [row for row in TASKS if row.startswith(("matting", "decomposition"))])
def test_an_objects_core_is_the_pictures_own(task):
    """Exactly; and the whole is far nearer to the truth than what the model drew."""
    picture, _, truth = scene()
    kept, model = run(task)[-1], answers(task)[-1]
    core = kept[3] >= (0.951 if TASKS[task].family == "matting" else 1)
    assert (kept[3] >= 1).float().mean() > 0.6 * (truth[3] >= 1).float().mean()
    assert torch.equal(kept[:3, core], picture[:3, core])
    assert alpha_mse(kept[3], truth[3]) < 0.5 * alpha_mse(model[3], truth[3])
    assert nine_psnr(kept, truth) > nine_psnr(model, truth) + 6


def test_a_trimap_is_kept_to():
    guide = trimap(scene()[2][3], 4)
    kept = run("matting_trimap")[0]
    assert torch.equal(kept[3][guide != 0.5], guide[guide != 0.5])


def test_a_mask_that_the_matte_contradicts_is_left_to_the_picture():
    alpha, mask = torch.zeros(40, 40), torch.zeros(40, 40)
    alpha[10:30, 10:30], mask[10:30, 10:20] = 1, 1
    known = matte_trimap(alpha, (40, 40), mask)
    assert (known[12:28, 22:28] == 0.5).all() and (known[12:28, 12:18] == 1).all() and known[0, 0] == 0


@pytest.mark.parametrize("task", [row for row in TASKS if row.startswith("removal")])
def test_a_removal_changes_what_it_must(task):
    """Own pixels away from the object; in the hole the model's, with its hues put right by what is around."""
    picture, truth, object_ = scene()
    (kept,), (model,) = run(task), answers(task)
    far, hole = ~grow(object_[3] > 0, 10), object_[3] > 0.5
    assert torch.equal(kept[:, far], picture[:, far]) and bool((kept[3] == 1).all())
    error = lambda layer, where: float((layer - truth)[:3, where].abs().mean())  # noqa: E731
    assert error(kept, hole) < 0.4 * error(model, hole)
    rim = grow(hole, 8) & ~hole
    assert error(kept, rim) < 0.5 * error(model, rim)


def test_a_shadow_beyond_the_mask_goes_with_its_object():
    picture, truth, object_ = scene()
    y, x = grid()
    shadow = (((x - 0.45) / 0.35) ** 2 + ((y - 0.2) / 0.2) ** 2 < 1) & (object_[3] == 0)
    picture = torch.where(shadow, picture * picture.new_tensor([0.5, 0.5, 0.5, 1])[:, None, None], picture)
    task = TASKS["removal_mask"]
    mask = (object_[3] > 0.5).float()
    (kept,) = keep_pixels(task, picture, [drawn(truth)], SEEN, mask, drawn(picture))
    error = lambda layer: float((layer - truth)[:3, shadow].abs().mean())  # noqa: E731
    assert error(kept) < 0.15 * error(picture)
    far = ~grow(shadow | (object_[3] > 0), 12)
    assert torch.equal(kept[:, far], picture[:, far])


@pytest.mark.parametrize("task", ["removal_auto", "removal_mask", "removal_coarse_mask", "bg_to_full"])
def test_where_nothing_changed_the_picture_stays(task):
    picture = scene()[0]
    (kept,) = run(task, layers=[drawn(picture)])
    assert torch.equal(kept, picture)


def test_the_round_trip_is_asked_for_where_it_is_needed():
    asked = []
    trip = lambda: asked.append(1) or drawn(scene()[0])  # noqa: E731
    for task in ("matting_mask", "fg_to_bg", "fg_to_full"):
        run(task, round_trip=trip)
    assert not asked
    for count, task in enumerate(("removal_auto", "decomposition_auto", "bg_to_full"), 1):
        run(task, round_trip=trip)
        assert len(asked) == count


def test_an_object_stays_as_given_in_its_composite():
    """Exactly where it is opaque; around it, the model's, without the model's rendering of the rim."""
    _, behind, object_ = scene()
    model = drawn(over(object_, behind), 0.0)
    (kept,) = keep_pixels(TASKS["fg_to_full"], clean_hidden(object_), [model], SEEN)
    opaque, clear = object_[3] >= 1, ~grow(object_[3] > 0, 20)
    assert torch.equal(kept[:3, opaque], object_[:3, opaque]) and torch.equal(kept[:, clear], model[:, clear])
    rim = grow(object_[3] > 0, 6) & (object_[3] < 1)
    truth = over(object_, drawn(behind, 0.0))
    error = lambda layer: float((layer - truth)[:3, rim].abs().mean())  # noqa: E731
    assert error(kept) < 0.5 * error(model)


def test_a_background_stays_as_given_in_its_composite():
    _, behind, object_ = scene()
    model = drawn(over(object_, behind))
    (kept,) = keep_pixels(TASKS["bg_to_full"], behind, [model], SEEN, round_trip=drawn(behind))
    far, core = ~grow(object_[3] > 0, 10), object_[3] >= 1
    assert torch.equal(kept[:, far], behind[:, far])
    assert (kept - over(object_, behind))[:3, core].abs().mean() < 0.1


@pytest.mark.parametrize("task", ["fg_to_bg", "bg_to_fg", "text_to_rgba", "text_to_layers"])
def test_new_layers_are_the_models(task):
    layers = answers(task)
    for kept, layer in zip(run(task, layers=layers), layers, strict=True):
        assert torch.equal(kept, layer)
    assert keep_pixels(None, scene()[0], layers, SEEN) == layers


@settings(max_examples=10)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_decompositions_recompose(height, width, seed, cut_out):
    """Whatever picture, layers and size: to a rounding of floats, and within a step once they are 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    picture, *layers = (torch.rand(4, height, width, generator=generator) for _ in range(3))
    picture[3] = (3 * picture[3]).floor().clamp(max=2) / 2 if cut_out else 1
    picture = clean_hidden(picture)
    layers[1][3] = (2 * layers[1][3] - 0.5).clamp(0, 1)
    kept = keep_pixels(TASKS["decomposition_auto"], picture, layers, (height, width))
    assert all(bool(((layer >= 0) & (layer <= 1)).all()) for layer in kept)
    premultiplied = lambda layer: torch.cat([layer[:3] * layer[3:], layer[3:]])  # noqa: E731
    apart = premultiplied(flatten(kept)) - premultiplied(picture)
    assert float(apart.abs().max()) < 0.51 / 255  # of alpha below half a step, whose colours are hidden
    rounded = [(layer * 255).round() / 255 for layer in kept]
    apart = (premultiplied(flatten(rounded)) - premultiplied(picture)).abs().amax(dim=0)
    assert float((apart <= 2 / 255).float().mean()) >= 0.99


@settings(max_examples=10)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(list(TASKS)), st.sampled_from([0.0, 0.5, 1.0]))
def test_any_picture_and_any_matte(height, width, task, level):
    """A pixel, a line, with alpha of its own, nothing found and everything: in [0, 1], never NaN, of the same size."""
    row, generator = TASKS[task], torch.Generator().manual_seed(height * 31 + width)
    picture = clean_hidden(
        torch.rand(4, height, width, generator=generator).round()
        if level == 0.5
        else torch.rand(4, height, width, generator=generator)
    )
    layers = [torch.rand(4, height, width, generator=generator) for _ in row.targets]
    for layer in layers:
        layer[3] = level
    guide = torch.full((height, width), level) if row.guide_role else None
    for kept in keep_pixels(row, picture if row.inputs else None, layers, (64, 64), guide, picture):
        assert kept.shape == picture.shape and bool(((kept >= 0) & (kept <= 1)).all())
        if row.family == "matting":
            assert bool((kept[3] <= picture[3]).all())


def test_nothing_found_and_everything():
    picture = scene()[0]
    nothing, everything = torch.zeros_like(picture), torch.ones_like(picture)
    behind, object_ = run("decomposition_auto", layers=[everything, nothing])
    assert torch.equal(behind, picture) and not object_.any()
    behind, object_ = run("decomposition_auto", layers=[everything, everything])
    assert torch.equal(object_, picture) and torch.equal(behind, everything)


@pytest.mark.parametrize("task", ["matting_mask", "removal_mask", "decomposition_mask"])
def test_16_bits_stay(task):
    """Values between 8-bit steps come out as they went in, wherever the picture's own pixels are."""
    picture, _, object_ = scene()
    kept = run(task)
    own = object_[3] == 0 if TASKS[task].targets[0] == "background" else object_[3] == 1
    own = shrink(own, 14 if TASKS[task].targets[0] == "background" else 4)
    words = kept[0][:3, own] * 65535
    assert torch.equal(kept[0][:3, own], picture[:3, own]) and len((words / 257).round().unique()) < len(words.unique())
    alpha = kept[-1][3]
    assert TASKS[task].family == "removal" or len((alpha * 255).round().unique()) < len(alpha.unique())


def test_what_a_matte_has_missed_is_no_ghost_in_the_background():
    """The model's background shows that there was an object, though its matte knows only half of it."""
    picture, truth, object_ = scene()
    half = grid()[1] < 0
    matte = drawn(object_)
    matte[3] *= half
    behind, front = run("decomposition_auto", layers=[drawn(truth), matte])
    missed = shrink((object_[3] >= 1) & ~half, 6)
    error = lambda layer: float((layer - truth)[:3, missed].abs().mean())  # noqa: E731
    assert error(behind) < 0.2 * error(picture)
    assert front[3, missed].mean() > 0.5
    far = ~grow(object_[3] > 0, 12)
    assert not front[3, far].any() and torch.equal(behind[:, far], picture[:, far])
    assert float((over(front, behind) - picture).abs().max()) < 0.51 / 255


def test_a_background_that_is_a_little_off_costs_the_object_nothing():
    """Texture that the model does not draw stays in the background."""
    picture, truth, object_ = scene()
    noise = 0.04 * torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(1))
    picture = torch.cat([(picture[:3] + noise).clamp(0, 1), picture[3:]])
    layers = [drawn(truth), drawn(object_)]
    behind, front = keep_pixels(TASKS["decomposition_auto"], picture, layers, SEEN, None, drawn(picture))
    around = grow(object_[3] > 0, 10) & ~grow(object_[3] > 0, 4)
    assert front[3, around].mean() < 0.01
    assert (behind - picture)[:3, around].abs().mean() < 0.3 * (drawn(truth) - picture)[:3, around].abs().mean()


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_the_least_share_is_enough_and_no_less_is(seed):
    mixed, back = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    share = least_share(mixed, back)
    front = lambda part: (mixed - (1 - part) * back) / part  # noqa: E731
    assert bool(((share > 0) & (share <= 1)).all())
    assert bool(((front(share) > -1e-4) & (front(share) < 1 + 1e-4)).all())
    less = front(0.99 * share)
    assert bool(((less < 0) | (less > 1)).any(dim=0).all())
    assert not least_share(mixed, mixed).any()


def test_an_object_may_be_most_of_a_picture():
    """What is typical is what has changed least, and gaps in a change have changed with it."""
    generator = torch.Generator().manual_seed(0)
    apart = 0.02 + 0.01 * torch.rand(32, 32, generator=generator)
    apart[3:29, 5:27] = 0.1 + 0.4 * torch.rand(26, 22, generator=generator)
    apart[10:13, 10:13] = 0.02
    region = changed(apart)
    truth = torch.zeros(32, 32, dtype=torch.bool)
    truth[3:29, 5:27] = True
    assert torch.equal(region, truth)


def test_a_tint_all_over_is_no_difference():
    """A model's own hues and contrast; what else is different shows as much as it did."""
    picture, truth, object_ = scene()
    tinted = truth.clone()
    tinted[:3] = 0.8 * tinted[:3] + torch.tensor([0.1, 0.0, 0.05])[:, None, None]
    plain, toned = difference(truth, picture, SEEN), difference(tinted, picture, SEEN)
    where = resize(object_, SEEN)[3]
    assert toned[where == 0].mean() < 0.01 and toned[where == 1].mean() > 0.75 * plain[where == 1].mean()


def test_changes_are_told_from_softness():
    """Against a typical difference everywhere, with specks in it, and only where the guide leads."""
    generator = torch.Generator().manual_seed(0)
    apart = 0.03 + 0.01 * torch.rand(32, 32, generator=generator)
    apart[3, 3] = 1
    assert not changed(apart).any()
    apart[10:16, 10:16], apart[10:16, 16:19], apart[24:28, 24:28] = 0.5, 0.07, 0.4
    both = changed(apart)
    assert both[12, 12] and both[12, 17] and both[25, 25] and not both[3, 3] and both.sum() < 80
    guide = torch.zeros(32, 32, dtype=torch.bool)
    guide[11:14, 11:14] = True
    one = changed(apart, guide)
    assert one[10:16, 10:16].all() and not one[25, 25]
    assert not changed(torch.zeros(32, 32), guide).any()


def test_patches_meet_their_surroundings():
    """A constant error is found all through the hole; what is known twice over stays."""
    y, x = grid()
    picture = torch.stack([0.4 + 0.1 * x, 0.5 + 0.1 * y, 0.5 + 0 * x])
    known = ((x**2 + y**2).sqrt() > 0.5).float()
    assert (fitted(picture - 0.1, picture, known, SEEN) - picture).abs().max() < 0.01
    assert torch.allclose(fitted(picture, picture, known, SEEN), picture)
    assert torch.equal(fitted(picture, picture * 0, known * 0, SEEN), picture)
    values = torch.rand(2, 7, 5)
    assert torch.equal(spread_out(values, torch.ones(7, 5)), values)


def test_a_patch_fades_out():
    region = torch.zeros(24, 24, dtype=torch.bool)
    region[8:16, 8:16] = True
    weight = patch_weight(region, None, SIZE)
    assert (weight[36:60, 36:60] == 1).all() and weight[:24].sum() == 0 and 0 < weight[30, 48] <= 1
    assert len(weight[24:36, 48].unique()) > 3


def test_regions():
    region = torch.zeros(9, 9, dtype=torch.bool)
    region[4, 4] = True
    assert grow(region, 2).sum() == 25 and torch.equal(shrink(grow(region, 2), 2), region)
    assert shrink(torch.ones(3, 3, dtype=torch.bool), 5).all()
    walls = torch.ones(9, 9, dtype=torch.bool)
    walls[:, 6] = False
    assert reached(region, walls).sum() == 54 and not reached(region, ~walls).any()
    assert torch.equal(grow(region, 0), region)
    ring = grow(region, 2) & ~region
    assert torch.equal(filled(ring), grow(region, 2)) and torch.equal(filled(~walls), ~walls)


def test_differences_are_those_of_what_shows():
    one, other = disc(), disc()
    other[:3, one[3] == 0] = 1
    assert difference(one, other, SEEN).abs().max() < 1e-5


def test_keeping_is_watched_and_can_be_stopped():
    shares = []
    run("decomposition_auto", progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) > 5
    with pytest.raises(Cancelled):
        run("matting_auto", progress=lambda done: done < 0.5)


def test_refusals():
    picture = scene()[0]
    with pytest.raises(OmniAlphaError, match="96x96 and a layer 8x16"):
        keep_pixels(TASKS["matting_auto"], picture, [torch.rand(4, 16, 8)], SEEN)
    with pytest.raises(OmniAlphaError, match="gives 2 layers, got 1"):
        keep_pixels(TASKS["decomposition_auto"], picture, [picture], SEEN)
