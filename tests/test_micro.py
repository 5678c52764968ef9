"""The built-in checkpoint does what it is shipped for, on objects and backgrounds that it never saw."""

import json
from statistics import fmean

import pytest
import torch

from omnialpha.checkpoint.settings import read_settings
from omnialpha.checkpoint.weights import find_checkpoint
from omnialpha.cli.demo_scenes import DATA, load_scenes
from omnialpha.data.objects import split_of
from omnialpha.layers.compositing import flatten, over_colour
from omnialpha.metrics import alpha_mse, psnr, soft_iou
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.tasks import TASKS, get_task

SCENES = 12


@pytest.fixture(scope="module")
def pipeline():
    return OmniAlphaPipeline.from_pretrained("micro")


@pytest.fixture(scope="module")
def scenes():
    """Each of the six held-out objects on two of the held-out backgrounds."""
    return load_scenes(SCENES)


@pytest.fixture(scope="module")
def run(pipeline, scenes):
    """All scenes through a task, once: the model's own layers unless told."""
    done = {}

    def layers_of(task_id, pixels="redraw"):
        if (task_id, pixels) not in done:
            task = get_task(task_id)
            done[task_id, pixels] = [
                pipeline(
                    task=task_id,
                    images=[getattr(scene, task.image_role)] if task.image_role else [],
                    guide=getattr(scene, task.guide_role) if task.guide_role else None,
                    text=scene.name if task.needs_text else "",
                    seed=index,
                    pixels=pixels,
                )
                for index, scene in enumerate(scenes)
            ]
        return done[task_id, pixels]

    return layers_of


def alpha_error(layers, scenes) -> float:
    return fmean(alpha_mse(result[-1][3], scene.foreground[3]) for result, scene in zip(layers, scenes))


def overlap(layers, scenes) -> float:
    return fmean(soft_iou(result[-1][3], scene.foreground[3]) for result, scene in zip(layers, scenes))


def cleaned(layers, scenes) -> float:
    """How near the background is to the true one, in dB."""
    return fmean(psnr(over_colour(result[0]), scene.background[:3]) for result, scene in zip(layers, scenes))


def test_matting_finds_the_object(run, scenes):
    opaque = fmean(alpha_mse(torch.ones_like(scene.mask), scene.foreground[3]) for scene in scenes)
    layers = run("matting_auto")
    assert alpha_error(layers, scenes) <= opaque / 10
    assert overlap(layers, scenes) >= 0.75


def test_a_trimap_helps(run, scenes):
    assert alpha_error(run("matting_trimap"), scenes) < alpha_error(run("matting_auto"), scenes)
    assert overlap(run("matting_trimap"), scenes) > overlap(run("matting_auto"), scenes)


def test_removal_beats_leaving_the_object_in(run, scenes):
    for task in ("removal_auto", "removal_mask"):
        untouched = fmean(psnr(scene.composite[:3], scene.background[:3]) for scene in scenes)
        assert cleaned(run(task), scenes) > untouched + 2


def test_decomposition_recomposes(run, scenes):
    layers = run("decomposition_auto")
    recomposed = [psnr(over_colour(flatten(out)), scene.composite[:3]) for out, scene in zip(layers, scenes)]
    assert fmean(recomposed) >= 20
    assert overlap(layers, scenes) >= 0.6


def test_keeping_the_pictures_pixels_is_nearer_to_the_truth(run, scenes):
    for task in ("matting_auto", "matting_mask"):
        assert alpha_error(run(task, "keep"), scenes) < 0.85 * alpha_error(run(task), scenes), task
        assert overlap(run(task, "keep"), scenes) > overlap(run(task), scenes), task
    for task, gain in (("removal_auto", 1), ("removal_mask", 2)):
        assert cleaned(run(task, "keep"), scenes) > cleaned(run(task), scenes) + gain, task


def test_what_is_kept_recomposes(run, scenes):
    """At least 99 % of the pixels within 2/255; nothing is rounded to 8 bits here."""
    for layers, scene in zip(run("decomposition_mask", "keep"), scenes):
        off = (over_colour(flatten(layers)) - scene.composite[:3]).abs().amax(dim=0)
        assert (off <= 2 / 255).float().mean() >= 0.99


def test_completion_keeps_the_object(run, scenes):
    """Where the cut-out is opaque, the full picture has to show it."""
    kept = [psnr(over_colour(out[0]), s.foreground[:3], s.foreground[3]) for out, s in zip(run("fg_to_full"), scenes)]
    missing = [psnr(s.background[:3], s.foreground[:3], s.foreground[3]) for s in scenes]
    assert fmean(kept) > fmean(missing) + 3


def test_generation_draws_something_with_a_transparent_surround(run):
    for (drawn,) in run("text_to_rgba"):
        alpha = drawn[3]
        border = torch.cat([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert alpha.max() > 0.5, "something is there"
        assert border.mean() < alpha.mean(), "and it thins out towards the edge"


def test_size_and_settings():
    folder = find_checkpoint("micro")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 30 * 2**20
    assert read_settings(folder).tasks == tuple(TASKS)
    assert not [file for file in folder.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


def test_demo_pictures_are_held_out():
    """By the very rule that split the training data."""
    from omnialpha.data.demo_pictures import OBJECTS

    names = json.loads((DATA / "objects.json").read_text("utf-8"))["names"]
    assert sorted(names.values()) == sorted(OBJECTS)
    codes = {
        "teddy bear": "1f9f8",
        "cactus": "1f335",
        "ice cream": "1f368",
        "llama": "1f999",
        "potted plant": "1fab4",
        "light bulb": "1f4a1",
    }
    assert all(split_of(codes[name]) == "test" for name in OBJECTS)


def test_seeds_matter_and_repeat(pipeline, scenes):
    first, again, other = (pipeline(task="matting_auto", images=scenes[0].composite, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
