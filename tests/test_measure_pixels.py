"""tools/measure_pixels.py: its scenes recompose, the truth is perfect by every measure, and faults are seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import measure_pixels as tool

from omnialpha.data.materials import load_materials
from omnialpha.layers.compositing import over


@pytest.fixture(scope="module")
def scenes():
    materials = load_materials("glyphs", "textures", "test", None, 256)
    return [tool.draw_scene(materials, number, seed=1) for number in (0, 5, 10, 14)]


def test_any_sixteen_scenes_hold_every_size_and_edge():
    pairs = {(number % 4, (number + number // 4) % 4) for number in range(7, 23)}
    assert len(pairs) == len(tool.SHARES) * len(tool.KINDS)


def test_the_truth_recomposes_and_is_perfect_by_every_measure(scenes):
    for scene in scenes:
        whole = over(scene.foreground, scene.background)
        assert (whole - scene.picture).abs().max() <= 1.01 / 255  # both are rounded to 8 bits
        values = tool.measure(scene, "decomposition_mask", [scene.background, scene.foreground])
        best = {"picture": 100, "hole": 100, "nine": 100, "recomposed": 100}
        assert values == pytest.approx({name: best.get(name, 0) for name in values})
        assert {"alpha", "grad", "seam", "core"} <= set(values)


def test_a_patch_of_another_brightness_has_a_seam_and_a_soft_one_less(scenes):
    scene = scenes[2]
    hole = scene.foreground[3] > 0.02
    sharp = scene.background[:3] * torch.where(hole, 0.8, 1.0)
    weight = torch.nn.functional.avg_pool2d(hole[None].float(), 31, 1, 15)[0]
    soft = scene.background[:3] * (1 - 0.2 * weight)
    seams = [tool.seam(found, scene.picture[:3], scene.background[:3], hole) for found in (sharp, soft)]
    assert seams[0] > 2 and seams[0] > 5 * abs(seams[1])


def test_an_object_left_in_the_background_is_seen_in_the_hole_alone(scenes):
    scene = scenes[2]
    left, gone = (
        tool.measure(scene, "removal_mask", [background])["hole"] for background in (scene.picture, scene.background)
    )
    assert left < 20 < gone
