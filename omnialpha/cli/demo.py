"""The command `demo`: all five families on pictures the model never saw, with errors against the known truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from ..checkpoint.folder import Checkpoint
from ..checkpoint.settings import Settings
from ..files.pictures import write_layer
from ..files.results import new_folder, write_layers
from ..files.sheet import Sheet
from ..files.writing import write_json
from ..layers.compositing import flatten, grey_layer, over, over_colour
from ..metrics import alpha_mse, psnr, soft_iou
from ..request import Plan, Request
from ..tasks import PIXELS, Task, get_task
from .demo_scenes import DATA, Scene, load_scenes

SCENES = 6
TASKS = (
    "text_to_rgba",
    "text_to_layers",
    "fg_to_full",
    "fg_to_bg",
    "matting_auto",
    "matting_trimap",
    "matting_mask",
    "removal_auto",
    "removal_mask",
    "decomposition_auto",
    "decomposition_mask",
)

# What to draw where words are all there is. Objects it never saw have names that micro never learnt to draw.
WORDS = ("red apple", "rocket", "red heart", "cat face", "sun", "banana")

Layers = list[torch.Tensor]


@dataclass(frozen=True)
class SceneMeasure:
    """One number about a result, and what doing nothing would give.

    Attributes:
        name: short, with its unit.
        value: of generated layers, given the scene.
        baseline: of the trivial answer, None where there is none.
        trivial: the trivial answer in words.
    """

    name: str
    value: Callable[[Scene, Layers], float]
    baseline: Callable[[Scene], float] | None = None
    trivial: str = ""


def _alpha(index: int) -> tuple[SceneMeasure, ...]:
    """Measures of the foreground's alpha, where that is layer `index`."""
    return (
        SceneMeasure(
            "alpha MSE x1000",
            lambda scene, layers: 1000 * alpha_mse(layers[index][3], scene.foreground[3]),
            lambda scene: 1000 * alpha_mse(torch.ones_like(scene.mask), scene.foreground[3]),
            "all opaque",
        ),
        SceneMeasure(
            "soft IoU",
            lambda scene, layers: soft_iou(layers[index][3], scene.foreground[3]),
            lambda scene: soft_iou(torch.ones_like(scene.mask), scene.foreground[3]),
            "all opaque",
        ),
    )


_BACKGROUND = SceneMeasure(
    "background PSNR dB",
    lambda scene, layers: psnr(over_colour(layers[0]), scene.background[:3]),
    lambda scene: psnr(scene.composite[:3], scene.background[:3]),
    "input unchanged",
)
_RECOMPOSED = SceneMeasure(
    "recomposed PSNR dB", lambda scene, layers: psnr(over_colour(flatten(layers)), scene.composite[:3])
)
_KEPT = SceneMeasure(
    "object kept PSNR dB",
    lambda scene, layers: psnr(over_colour(layers[0]), scene.foreground[:3], _solid(scene)),
    lambda scene: psnr(scene.background[:3], scene.foreground[:3], _solid(scene)),
    "no object",
)


def _solid(scene: Scene) -> torch.Tensor:
    """[H, W]: 1 where the object hides whatever is behind it, which is where its picture is known."""
    return (scene.foreground[3] > 0.99).float()


def measures(task_id: str) -> tuple[SceneMeasure, ...]:
    """What can be measured about a task; nothing where any good picture would do."""
    family = get_task(task_id).family
    if family == "matting":
        return _alpha(0)
    if family == "removal":
        return (_BACKGROUND,)
    if family == "decomposition":
        return (*_alpha(1), _BACKGROUND, _RECOMPOSED)
    return (_KEPT,) if task_id == "fg_to_full" else ()


def recompose(task_id: str, scene: Scene, layers: Layers) -> torch.Tensor:
    """The generated layers together with what the scene has beside them; ideally the scene's composite."""
    targets = get_task(task_id).targets
    if targets == ("foreground",):
        return over(layers[0], scene.background)
    if targets == ("background",):
        return over(scene.foreground, layers[0])
    return flatten(layers)


def demo(
    out: str | Path, checkpoint: str | Path = "micro", seed: int = 0, scenes: int = SCENES, data: Path = DATA
) -> Path:
    """Runs the demo. Gives the folder with the layers, `sheet.png` and `results.json`.

    Args:
        out: folder to make; gets a number where it has something in it.
        checkpoint: see `Checkpoint`.
        seed: of the noise; scene k takes seed + k.
        scenes: pictures per task.
        data: folder with the pictures, see `demo_scenes.load_scenes`.

    Raises:
        OmniAlphaError: the checkpoint or the demo's pictures are not complete, or the folder cannot be written.
    """
    from tqdm import tqdm

    from ..device import find_device
    from ..pipeline import load

    started = time.monotonic()
    opened = Checkpoint(checkpoint).check()
    settings, pictures = opened.settings, load_scenes(scenes, data)
    runs = [
        (task, k, pixels, _plan(settings, task, scene, k, seed=seed + k, pixels=pixels))
        for task in TASKS
        for k, scene in enumerate(pictures)
        for pixels in PIXELS[: 2 if measures(task) else 1]  # where nothing is measured, the two are the same
    ]
    with new_folder(out) as out:
        pipeline = load(opened, find_device("auto"))
        sheet = Sheet("OmniAlpha: layers from pictures the model never saw", _COLUMNS)
        results: dict[str, dict] = {task: {pixels: {"scenes": []} for pixels in PIXELS} for task in TASKS}
        total = sum(plan.steps * plan.passes for *_, plan in runs)
        with tqdm(total=total, desc="demo", unit="step", leave=False, disable=None) as bar:
            for task, k, pixels, plan in runs:
                bar.set_description(task)
                layers = pipeline.run(plan, lambda step, steps, preview: bar.update(1))
                values = {m.name: m.value(pictures[k], layers) for m in measures(task)}
                results[task][pixels]["scenes"].append(values)
                if pixels != PIXELS[0]:
                    continue
                _write(out / f"{task}-{k + 1}", pictures[k], plan, layers, opened)
                # Another scene in every row, so that the sheet shows them all and picks none.
                if k == TASKS.index(task) % scenes:
                    _row(sheet, task_id=task, scene=pictures[k], k=k, layers=layers, values=values)
        _summarise(results, pictures)
        write_layer(sheet.draw(), out / "sheet.png")
        write_json(out / "results.json", results)
    print(table(results))
    print(f"\n{len(runs)} runs, {scenes} scenes per task, {time.monotonic() - started:.0f} s in all")
    print(f"layers, results.json and the contact sheet: {out / 'sheet.png'}")
    return out


_COLUMNS = ("input", "guide", "layer 1 (back)", "layer 2 (front)", "recomposed", "truth")


def _given(task: Task, scene: Scene) -> list[torch.Tensor]:
    """What an artist would bring: the image and the guide, as far as the task takes them."""
    image = [getattr(scene, task.image_role)] if task.image_role else []
    return image + ([grey_layer(getattr(scene, task.guide_role))] if task.guide_role else [])


def words(task: Task, scene: Scene, k: int) -> str:
    """What the artist would type for scene k: something to draw, the scene's object, or nothing."""
    if not task.inputs:
        return WORDS[k % len(WORDS)]
    return "" if task.text == "none" else scene.name


def _plan(settings: Settings, task_id: str, scene: Scene, k: int, *, seed: int, pixels: str) -> Plan:
    task = get_task(task_id)
    request = Request(task=task_id, images=_given(task, scene), text=words(task, scene, k), seed=seed, pixels=pixels)
    return request.plan(settings)


def _write(place: Path, scene: Scene, plan: Plan, layers: Layers, checkpoint: Checkpoint) -> None:
    """One run's layers with what went in, in a folder of their own."""
    assert plan.task, "the demo asks for tasks, not for instructions of its own"
    place.mkdir()
    write_layers(layers, plan.names, place, plan.record() | checkpoint.record())
    for name, layer in zip(("image", "guide"), _given(plan.task, scene)):
        write_layer(layer, place / f"00-{name}.png")


def _row(sheet: Sheet, *, task_id: str, scene: Scene, k: int, layers: Layers, values: dict[str, float]) -> None:
    task = get_task(task_id)
    given = [*_given(task, scene), None, None][:2]
    generated = [*layers, None][:2]
    truths = {"matting": scene.foreground, "removal": scene.background, "decomposition": scene.foreground}
    lines = [f'"{said}"'] if (said := words(task, scene, k)) else []
    lines += [f"{name}: {value:.3g}" for name, value in values.items()]
    whole = recompose(task_id, scene, layers) if task.inputs or len(layers) > 1 else None  # one object from words alone
    sheet.add(task_id, lines, [*given, *generated, whole, truths.get(task.family)])


def _summarise(results: dict[str, dict], pictures: list[Scene]) -> None:
    """Adds the means over the scenes, and the trivial answers' means beside them."""
    for task, result in results.items():
        for pixels in PIXELS:
            scenes = result[pixels]["scenes"]
            result[pixels]["mean"] = {m.name: fmean(scene[m.name] for scene in scenes) for m in measures(task)}
        result["trivial"] = {m.name: fmean(map(m.baseline, pictures)) for m in measures(task) if m.baseline}


def table(results: dict[str, dict]) -> str:
    """The results as text: one line per task and number."""
    heads = "".join(f"{pixels:>8}" for pixels in PIXELS)
    lines = [f"{'task':24}{'against the known truth':24}{heads}{'trivial answer':>30}"]
    for task, result in results.items():
        rows = measures(task)
        if not rows:
            lines.append(f"{task:24}any good picture will do: see the sheet")
        for k, measure in enumerate(rows):
            trivial = result["trivial"].get(measure.name)
            words = f"{trivial:.3g} ({measure.trivial})" if trivial is not None else ""
            head = task if k == 0 else ""
            means = "".join(f"{result[pixels]['mean'][measure.name]:>8.3g}" for pixels in PIXELS)
            lines.append(f"{head:24}{measure.name:24}{means}{words:>30}".rstrip())
    return "\n".join(lines)
