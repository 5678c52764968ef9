"""What a run keeps of the picture's own pixels, and how closely it looks, through the pipeline with micro."""

from __future__ import annotations

import pytest
import torch

from omnialpha.errors import Cancelled, OmniAlphaError
from omnialpha.layers.compositing import flatten, opaque
from omnialpha.pipeline import OmniAlphaPipeline

SIDE = 320


@pytest.fixture(scope="module")
def micro():
    return OmniAlphaPipeline.from_pretrained("micro")


@pytest.fixture(scope="module")
def scene():
    """A smooth picture [4, 320, 320] with a small disc on it, and the disc's mask."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, SIDE),) * 2, indexing="ij")
    picture = opaque(torch.stack([0.3 + 0.2 * rows, 0.5 + 0.1 * columns, 0.6 - 0.2 * rows]))
    disc = ((rows - 0.6).square() + (columns - 0.3).square()).sqrt() < 0.08
    picture[:3, disc] = torch.tensor([0.9, 0.3, 0.1])[:, None]
    return picture, disc.float()


@pytest.fixture
def passes(micro, monkeypatch):
    """Sizes of what the model was shown, pass by pass."""
    seen, make = [], OmniAlphaPipeline._make

    def noting(self, plan, fitted, after_step):
        seen.append((tuple(fitted.frame.source), tuple(fitted.size)))
        return make(self, plan, fitted, after_step)

    monkeypatch.setattr(OmniAlphaPipeline, "_make", noting)
    return seen


def test_keeping_and_looking_closely_are_the_defaults(micro, scene):
    picture, mask = scene
    default = micro("removal_mask", images=[picture], guide=mask)[0]
    assert torch.equal(default, micro("removal_mask", images=[picture], guide=mask, pixels="keep", look="close")[0])
    assert not torch.equal(default, micro("removal_mask", images=[picture], guide=mask, pixels="redraw")[0])


def test_redraw_is_one_pass_over_the_whole_and_the_models_own_layers(micro, scene, passes):
    picture, mask = scene
    made = []
    layers = micro(
        "decomposition_mask",
        images=[picture],
        guide=mask,
        pixels="redraw",
        callback=lambda step, steps, preview: made.append((step == steps, preview)),
    )
    assert [source for source, _ in passes] == [(SIDE, SIDE)]
    assert all(torch.equal(*pair) for pair in zip(layers, made[-1][1]())) and made[-1][0]


def test_a_guide_leads_to_a_window_and_no_guide_to_two_passes(micro, scene, passes):
    picture, mask = scene
    micro("matting_mask", images=[picture], guide=mask)
    ((source, _),) = passes
    assert max(source) < SIDE
    passes.clear()
    steps = []
    micro("matting_auto", images=[picture], callback=lambda *told: steps.append(told[:2]))
    assert passes[0][0] == (SIDE, SIDE) and len(passes) <= 2
    assert steps == [(k + 1, 2 * micro.settings.steps_for("matting_auto")) for k in range(len(steps))]
    passes.clear()
    micro("matting_auto", images=[picture], look="whole")
    assert [source for source, _ in passes] == [(SIDE, SIDE)]


def test_what_is_kept_is_the_picture_bit_for_bit(micro, scene):
    picture, mask = scene
    (cutout,) = micro("matting_mask", images=[picture], guide=mask)
    core = cutout[3] == 1
    assert core.any() and torch.equal(cutout[:3, core], picture[:3, core])
    (background,) = micro("removal_mask", images=[picture], guide=mask)
    same = (background == picture).all(dim=0)
    assert same.float().mean() > 0.9 and not same[mask > 0].any()
    both = micro("decomposition_mask", images=[picture], guide=mask)
    assert (flatten(both)[:3] - picture[:3]).abs().max() <= 2 / 255


def test_finishing_tells_how_far_it_is_and_can_be_stopped(micro, scene):
    picture, mask = scene
    told = []
    micro("matting_mask", images=[picture], guide=mask, progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    with pytest.raises(Cancelled, match="finishing"):
        micro("matting_mask", images=[picture], guide=mask, progress=lambda done: False)


@pytest.mark.parametrize("asked", [{"pixels": "own"}, {"look": "near"}])
def test_other_words_are_refused_before_the_model_runs(micro, scene, passes, asked):
    with pytest.raises(OmniAlphaError, match="expected one of"):
        micro("matting_auto", images=[scene[0]], **asked)
    assert not passes
