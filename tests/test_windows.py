"""Windows cut and put back bit for bit, chosen for every kind of object; and a close look against a model made up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnialpha.errors import OmniAlphaError
from omnialpha.layers.compositing import grey_layer, opaque
from omnialpha.layers.keeping import keep_pixels
from omnialpha.layers.looking import Made, drawn_window, find_object, finish, finished, look_at, put_back
from omnialpha.layers.resizing import fit_size
from omnialpha.layers.sequence import LayerSequence
from omnialpha.layers.windows import (
    ASPECT,
    WORTH,
    Window,
    change_support,
    find_window,
    guide_support,
    matte_support,
    working_sizes,
)
from omnialpha.tasks import TASKS

MICRO, PUBLIC = (16384, 16), (1024**2, 32)
SIZES = working_sizes(16384 / 3, 16)  # of micro's tasks with a guide and one target
side = st.integers(1, 400)


@st.composite
def windows(draw):
    """Any window of any picture."""
    picture = draw(side), draw(side)
    height, width = (draw(st.integers(1, length)) for length in picture)
    top, left = draw(st.integers(0, picture[0] - height)), draw(st.integers(0, picture[1] - width))
    return Window(top, left, height, width, picture)


@st.composite
def supports(draw):
    """One to three boxes in any picture, at its borders and in its corners as well."""
    height, width = draw(side), draw(side)
    support = torch.zeros(height, width, dtype=torch.bool)
    for _ in range(draw(st.integers(1, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        support[top : top + draw(st.integers(1, height)), left : left + draw(st.integers(1, width))] = True
    return support


def boxes(picture, *parts):
    support = torch.zeros(picture, dtype=torch.bool)
    for top, left, height, width in parts:
        support[top : top + height, left : left + width] = True
    return support


# Cutting and putting back


@given(windows(), st.sampled_from([(), (4,), (2, 3)]))
def test_cut_and_put_back_is_the_picture_itself(window, lead):
    planes = torch.rand(*lead, *window.picture)
    patch = window.cut(planes)
    assert patch.shape[-2:] == window.size
    assert torch.equal(window.put(patch, planes), planes)


@given(windows())
def test_a_patch_lies_where_its_window_is_and_nowhere_else(window):
    planes, patch = torch.rand(4, *window.picture), torch.rand(4, *window.size)
    before = planes.clone()
    whole = window.put(patch, planes)
    inside = torch.zeros(window.picture, dtype=torch.bool)
    inside[window.top : window.top + window.height, window.left : window.left + window.width] = True
    assert torch.equal(window.cut(whole), patch) and torch.equal(whole[:, ~inside], planes[:, ~inside])
    assert torch.equal(planes, before)
    assert window.share == pytest.approx(inside.float().mean().item(), rel=1e-6)
    assert window.whole == bool(inside.all())


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Window(0, 0, 5, 4, (4, 4)), "4x5 pixels .* beyond the picture of 4x4"),
        (lambda: Window(-1, 0, 2, 2, (4, 4)), "-1 from the top"),
        (lambda: Window(0, 0, 0, 2, (4, 4)), "at least 1"),
        (lambda: Window(0, 0, 2, 3, (4, 4)).cut(torch.zeros(4, 5, 4)), "the picture's 4x4 .* got 4x5"),
        (lambda: Window(0, 0, 2, 3, (4, 4)).put(torch.zeros(4, 3, 3), torch.zeros(4, 4, 4)), "the window's 3x2"),
        (lambda: find_window(torch.zeros(4, 4), SIZES), "bool"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(OmniAlphaError, match=words):
        call()


# Finding


@pytest.mark.parametrize("budget, multiple", [MICRO, PUBLIC])
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7])
def test_working_sizes_are_left_alone_by_the_model(budget, multiple, layers):
    sizes = working_sizes(budget / layers, multiple)
    square = fit_size(1, 1, budget / layers, multiple)
    assert square in sizes and {size[::-1] for size in sizes} == set(sizes)
    assert all(fit_size(*size, budget / layers, multiple) == size for size in sizes)
    assert len(sizes) > 1 and max(height / width for height, width in sizes) <= ASPECT


def test_a_budget_too_small_for_any_size_has_one():
    assert working_sizes(1, 16) == [(16, 16)]


@given(supports(), st.floats(0, 1))
def test_a_window_holds_every_part_and_lies_in_the_picture(support, margin):
    window = find_window(support, SIZES, margin)
    assert window.picture == tuple(support.shape)
    assert window.cut(support).sum() == support.sum()
    assert window.whole or window.share <= WORTH


@given(supports())
def test_a_window_is_seen_without_a_change_of_aspect(support):
    """Unless the picture's border cuts it: then its side is the picture's."""
    window = find_window(support, SIZES)
    height, width = window.size
    cut = height == support.shape[0] or width == support.shape[1]
    assert cut or any(height * b == width * a and height >= a for a, b in SIZES)


def test_small_objects_are_seen_without_scaling():
    window = find_window(boxes((1000, 1400), (500, 700, 40, 40)), SIZES)
    assert window.size == fit_size(*window.size, 16384 / 3, 16) == (80, 80)
    assert (window.top, window.left) == (480, 680)


def test_the_window_follows_the_object_s_shape():
    tall = find_window(boxes((1000, 1400), (300, 700, 300, 100)), SIZES)
    wide = find_window(boxes((1400, 1000), (700, 300, 100, 300)), SIZES)
    assert tall.size == wide.size[::-1] and tall.height > tall.width


@pytest.mark.parametrize("corner", [(0, 0), (0, 960), (960, 0), (960, 960)])
def test_at_a_corner_the_margin_ends_with_the_picture(corner):
    top, left = corner
    window = find_window(boxes((1000, 1000), (top, left, 40, 40)), SIZES)
    assert window.size == (80, 80)
    assert (window.top, window.left) == (0 if top == 0 else 920, 0 if left == 0 else 920)


def test_parts_far_apart_share_one_window():
    window = find_window(boxes((1000, 2000), (100, 200, 50, 50), (300, 700, 50, 50)), SIZES)
    assert not window.whole and window.top <= 100 and window.left <= 200
    assert window.top + window.height >= 350 and window.left + window.width >= 750


@pytest.mark.parametrize("picture", [(900, 2100), (2100, 900), (600, 1800), (1800, 600)])
def test_long_pictures_get_windows_of_a_sensible_shape(picture):
    """Also for an object from one long border to the other: no strip along the picture."""
    height, width = picture
    across = (0, width // 2 - 50, height, 100) if height < width else (height // 2 - 50, 0, 100, width)
    for part in (across, (height // 2, width // 2, 120, 120)):
        window = find_window(boxes(picture, part), SIZES)
        assert not window.whole and max(window.size) <= ASPECT * min(window.size)


def test_where_there_is_nothing_to_gain_the_whole_is_looked_at():
    assert find_window(boxes((500, 500)), SIZES).whole  # nothing found
    assert find_window(boxes((500, 500), (50, 50, 400, 400)), SIZES).whole  # nearly everything
    assert find_window(boxes((60, 70), (30, 30, 5, 5)), SIZES).whole  # smaller than what the model sees
    assert find_window(boxes((1, 1), (0, 0, 1, 1)), SIZES).whole


def test_guides_leave_room_for_all_but_sure_background():
    trimap = torch.tensor([[0, 0.5, 1], [0.01, 0.1, 0.0]])
    assert guide_support(trimap).tolist() == [[False, True, True], [False, True, False]]


def test_a_matte_is_read_by_its_peak_and_without_specks():
    alpha = torch.full((40, 40), 0.02)
    alpha[10:20, 10:20], alpha[30, 30] = 0.3, 0.3  # something of glass, and a speck
    assert matte_support(alpha).nonzero().aminmax(dim=0).min.tolist() == [10, 10]
    assert matte_support(alpha).nonzero().aminmax(dim=0).max.tolist() == [19, 19]
    thin = torch.zeros(40, 40)
    thin[:, 7] = 1  # a pole is no speck
    assert torch.equal(matte_support(thin), thin > 0)
    assert not matte_support(torch.zeros(4, 4)).any()


def test_a_change_is_told_from_the_model_s_softness():
    generator = torch.Generator().manual_seed(0)
    picture = opaque(0.5 + 0.05 * torch.randn(3, 64, 64, generator=generator).clamp(-2, 2))
    background = opaque(torch.full((3, 64, 64), 0.5))  # the model keeps no grain
    assert find_window(change_support(picture, background), SIZES).whole
    picture[:3, 20:40, 30:40] = 0.9
    found = change_support(picture, background)
    expected = boxes((64, 64), (20, 30, 20, 10))
    assert (found != expected).float().mean() < 0.02
    assert not change_support(picture, picture).any()


# Looking


def pretend(calls, answer):
    """A model that notes what it sees."""

    def run(fitted):
        calls.append(fitted)
        return answer(fitted)

    return run


def copy(fitted):
    """Every target is the picture, its alpha where the picture is bright."""
    picture = fitted.inputs[0]
    return Made([torch.cat([picture[:3], (picture[:1] > 0.5).float()]) for _ in range(fitted.targets)])


def picture_of(support):
    return opaque(support.float().expand(3, -1, -1) * 0.8 + 0.1)


def asked(task, support, **options):
    row = TASKS[task]
    layers = [picture_of(support)] + ([grey_layer(support.float())] if row.guide_role else [])
    return LayerSequence(layers, len(row.targets), **options), row


@pytest.mark.parametrize("task", [key for key, row in TASKS.items() if row.guide_role])
def test_with_a_guide_one_pass_sees_the_window(task):
    support, calls = boxes((300, 500), (200, 400, 30, 30)), []
    sequence, row = asked(task, support)
    seen = look_at(sequence, row, pretend(calls, copy), *MICRO)
    (fitted,) = calls
    assert seen.window.size == fitted.size  # not scaled at all
    assert torch.equal(fitted.inputs[0], seen.window.cut(sequence.layers[0]))
    assert torch.equal(fitted.inputs[1], seen.window.cut(sequence.layers[1]))


@pytest.mark.parametrize("task", ["matting_auto", "matting_text", "decomposition_auto"])
def test_without_a_guide_the_first_pass_finds_the_window(task):
    support, calls = boxes((300, 500), (200, 400, 30, 30)), []
    sequence, row = asked(task, support)
    seen = look_at(sequence, row, pretend(calls, copy), *MICRO)
    first, second = calls
    assert torch.equal(first.inputs[0], sequence.fitted(*MICRO).inputs[0])
    assert torch.equal(second.inputs[0], seen.window.cut(sequence.layers[0]))
    assert seen.window.cut(support).sum() == support.sum()


def test_without_a_guide_removal_looks_where_the_picture_changed():
    support, calls = boxes((300, 500), (200, 400, 40, 40)), []
    sequence, row = asked("removal_auto", support)
    seen = look_at(sequence, row, pretend(calls, lambda fitted: Made([torch.full_like(fitted.inputs[0], 0.1)])), *MICRO)
    assert len(calls) == 2 and seen.window.cut(support).sum() == support.sum() and seen.window.share < 0.1


@pytest.mark.parametrize("task", ["matting_auto", "matting_mask", "removal_auto", "decomposition_auto"])
@pytest.mark.parametrize(
    "support", [boxes((300, 500)), boxes((300, 500), (20, 30, 260, 440)), boxes((50, 60), (9, 9, 3, 3))]
)
def test_one_pass_is_enough_where_a_window_shows_no_more(task, support):
    """Nothing found, nearly everything, or a picture that is smaller than what the model sees."""
    sequence, row = asked(task, support)
    passes = []
    for look in ("close", "whole"):
        calls = []
        seen = look_at(sequence, row, pretend(calls, copy), *MICRO, look)
        assert len(calls) == 1 and seen.window.whole
        passes.append(seen.layers)
    assert all(torch.equal(a, b) for a, b in zip(*passes, strict=True))


def test_an_object_that_covers_a_third_is_not_looked_at_again():
    """Its window would be worth it, but the first pass shows it large already."""
    support, calls = boxes((400, 400), (0, 0, 150, 370)), []
    sequence, row = asked("matting_auto", support)
    look_at(sequence, row, pretend(calls, copy), *MICRO)
    assert len(calls) == 1 and not find_window(support, SIZES).whole


@pytest.mark.parametrize("task, options", [("fg_to_full", {}), ("bg_to_fg", {}), ("matting_mask", {"fit": "exact"})])
def test_other_tasks_and_exact_sizes_look_at_the_whole(task, options):
    sequence, row = asked(task, boxes((320, 480), (200, 400, 30, 30)), **options)
    calls = []
    assert look_at(sequence, row, pretend(calls, copy), *MICRO).window.whole and len(calls) == 1


def test_words_alone_have_nothing_to_look_at():
    seen = look_at(
        LayerSequence([], 2), TASKS["text_to_layers"], lambda fit: Made([torch.zeros(4, *fit.size)] * 2), *MICRO
    )
    assert seen.window.whole and len(seen.layers) == 2
    seen = look_at(LayerSequence([], 1), None, lambda fit: Made([torch.zeros(4, *fit.size)]), *MICRO)
    assert len(seen.layers) == 1


@pytest.mark.parametrize("fit", ["scale", "pad"])
@pytest.mark.parametrize("picture", [(300, 500), (301, 997), (900, 300)])
def test_what_the_model_made_comes_back_to_its_place(fit, picture):
    """Also through a fit that pads: the object of the second pass lies on the picture's."""
    support, calls = boxes(picture, (130, 200, 30, 40)), []
    sequence, row = asked("decomposition_auto", support, fit=fit)
    seen = look_at(sequence, row, pretend(calls, copy), *MICRO)
    background, foreground = put_back(seen.window, seen.layers, sequence.layers[0], row.targets)
    assert len(calls) == 2 and background.shape == foreground.shape == (4, *picture)
    assert torch.equal(foreground[3] > 0.5, support)
    outside = seen.window.put(torch.zeros(seen.window.size), torch.ones(picture)) > 0
    assert torch.equal(background[:, outside], sequence.layers[0][:, outside])
    assert not foreground[:, outside].any()


def test_the_artist_s_size_is_the_window_s_shape():
    sequence, row = asked("matting_mask", boxes((600, 600), (300, 300, 50, 50)), size=(96, 192))
    calls = []
    seen = look_at(sequence, row, pretend(calls, copy), *MICRO)
    assert calls[0].size == seen.window.size == (96, 192)


def test_another_look_is_refused_before_the_model_runs():
    sequence, row = asked("matting_mask", boxes((600, 600), (300, 300, 50, 50)))
    with pytest.raises(OmniAlphaError, match=r"'near'.*close, whole"):
        look_at(sequence, row, lambda fitted: pytest.fail("the model ran"), *MICRO, "near")


def test_micro_sees_a_small_object_better_from_close_by():
    """The object is 48 of 768 pixels wide: the whole picture leaves it 5 of the model's 80."""
    from omnialpha import OmniAlphaPipeline

    micro = OmniAlphaPipeline.from_pretrained("micro")
    micro.set_progress_bar_config(disable=True)
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, 768),) * 2, indexing="ij")
    picture = opaque(torch.stack([0.3 + 0.2 * rows, 0.5 + 0.1 * columns, 0.6 - 0.2 * rows]))
    disc = ((rows - 0.6).square() + (columns - 0.3).square()).sqrt() < 24 / 768
    picture[:3, disc] = torch.tensor([0.9, 0.3, 0.1])[:, None]
    row = TASKS["matting_mask"]
    sequence = LayerSequence([picture, grey_layer(disc.float())], 1)

    def model(fitted):
        asked = {"images": fitted.inputs[:1], "guide": fitted.inputs[1][0], "seed": 1, "size": fitted.size}
        return Made(micro("matting_mask", **asked, pixels="redraw"))

    errors = []
    for look in ("whole", "close"):
        seen = look_at(sequence, row, model, *MICRO, look)
        (layer,) = finished(seen, sequence, row, "redraw")
        errors.append(float((layer[3] - disc.float()).square().mean()) / float(disc.float().mean()))
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("task", ["matting_mask", "matting_auto", "removal_auto", "decomposition_text"])
def test_finding_the_object_is_what_a_look_does(task):
    """As a step of its own, with what the first pass made."""
    support, calls = boxes((300, 500), (200, 400, 40, 40)), []
    sequence, row = asked(task, support)
    answer = copy if "foreground" in row.targets else lambda fit: Made([torch.full_like(fit.inputs[0], 0.1)])
    seen = look_at(sequence, row, pretend(calls, answer), *MICRO)
    first = None if row.guide_role else answer(calls[0]).layers
    assert find_object(sequence, row, *MICRO, first) == seen.window and not seen.window.whole
    assert row.guide_role or find_object(sequence, row, *MICRO).whole


def test_a_drawn_window_is_the_rectangle_round_all_that_is_white():
    mask = torch.zeros(40, 60)
    mask[5:9, 50:60], mask[30, 7], mask[39, 0] = 1, 0.8, 0.4
    assert drawn_window(mask) == Window(5, 7, 26, 53, (40, 60))
    assert drawn_window(torch.ones(3, 4)).whole
    with pytest.raises(OmniAlphaError, match=r"window is empty.*60x40"):
        drawn_window(0.4 * mask)


def test_where_a_device_s_memory_ends_the_pixels_are_kept_on_the_picture_s(monkeypatch):
    sequence, row = asked("matting_mask", boxes((60, 80), (20, 20, 30, 30)))
    picture, guide = sequence.layers[0], sequence.layers[1][0]
    tried = []

    def keep(task, picture, *args, **kwargs):
        tried.append(picture.device.type)
        if picture.device.type == "meta":
            raise torch.cuda.OutOfMemoryError
        return keep_pixels(task, picture, *args, **kwargs)

    monkeypatch.setattr("omnialpha.layers.looking.keep_pixels", keep)
    common = {"seen": (60, 80), "guide": guide}
    made = [torch.cat([picture[:3], guide[None]])], Window.over((60, 80))
    (there,) = finish(row, picture, *made, **common, device=torch.device("meta"))
    (here,) = finish(row, picture, *made, **common)
    assert tried == ["meta", "cpu", "cpu"] and torch.equal(there, here) and there.device == picture.device
