"""What is measured of which task, as tables: measures by target layer, the ones that decide, and naive answers.

A measure's name is "layer_measure", such as "foreground_mse"; "_unknown" at its end means: only where the trimap does
not say. Records other than triplets have "layers_..." measures, means over all their layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from .. import metrics
from ..checks import size_of
from ..layers.compositing import grey_layer, opaque
from ..layers.resizing import resize
from ..tasks import TASKS
from .cases import Case

Layers = list[Tensor]


@dataclass(frozen=True)
class Measure:
    """One number about answers to a case.

    Attributes:
        name: see the module.
        words: what people read, with the factor that `shown` puts on it.
        higher_is_better: lower is better otherwise.
        value: of a case and one or more answers to it.
        factor: what tables multiply it by.
    """

    name: str
    words: str
    higher_is_better: bool
    value: Callable[[Case, list[Layers]], float]
    factor: float = 1


# name -> (words, function of two alpha planes and a region, factor in tables): lower is better
_ALPHA = {
    "mse": ("alpha MSE x1000", metrics.alpha_mse, 1000),
    "mad": ("alpha MAD x1000", metrics.mad, 1000),
    "sad": ("SAD (sum over pixels)", metrics.sad, 1),
    "grad": ("Grad (sum)", metrics.grad, 1),
    "conn": ("Conn (sum)", metrics.conn, 1),
}
# name -> (words, function of two layers, is higher better)
_LAYER = {
    "rgb_l1": ("RGB L1", metrics.rgb_l1, False),
    "soft_iou": ("alpha soft IoU", lambda found, truth: metrics.soft_iou(found[3], truth[3]), True),
    "nine_psnr": ("PSNR dB, nine colours", metrics.nine_psnr, True),
    "nine_ssim": ("SSIM, nine colours", metrics.nine_ssim, True),
}
_RECOMPOSITION = Measure(
    "recomposition",
    "recomposition error",
    False,
    lambda case, answers: fmean(metrics.recomposition_error(layers, case.inputs[0]) for layers in answers),
)
_ENERGY = Measure("energy", "energy score", False, lambda case, answers: metrics.energy_score(answers, case.targets))

# family -> the measures that say whether a method is better than another
_DECIDE = {
    "generation": ("energy",),
    "completion": ("energy",),
    "matting": ("foreground_mse",),
    "removal": ("background_nine_psnr",),
    "decomposition": ("foreground_mse", "background_nine_psnr"),
}

# Pictures of others against the truth, see `folders`: task -> (measure colour too, is there a trimap)
FOLDERS = {
    "pictures": (True, False),
    "pictures_trimap": (True, True),
    "mattes": (False, False),
    "mattes_trimap": (False, True),
}

# family, or task -> naive answers a model has to beat, see `NAIVE`
_NAIVE_FOR = {
    "text_to_rgba": ("opaque", "empty"),
    "text_to_layers": ("opaque",),
    "fg_to_full": ("copy", "opaque"),
    "fg_to_bg": ("copy", "opaque"),
    "bg_to_full": ("copy",),
    "bg_to_fg": ("copy", "empty"),
    "matting": ("opaque",),
    "removal": ("copy",),
    "decomposition": ("opaque",),
}


def is_open(task: str) -> bool:
    """Does the input leave the answer open, so that several samples are drawn and the energy score decides?"""
    return deciding(task) == ("energy",)


def deciding(task: str) -> tuple[str, ...]:
    """Names of the measures that decide about a task."""
    if task in TASKS:
        return _DECIDE[TASKS[task].family]
    return ("picture_mse",) if task in FOLDERS else ("layers_nine_psnr",)


def naive_methods(task: str) -> tuple[str, ...]:
    """Names of the naive answers to a task."""
    if task not in TASKS:
        return ("copy",)
    return _NAIVE_FOR.get(task) or _NAIVE_FOR[TASKS[task].family]


def measures_of(task: str) -> tuple[Measure, ...]:
    """Every measure of a task."""
    if task in FOLDERS:
        colour, trimap = FOLDERS[task]
        regions = ("", "_unknown") if trimap else ("",)
        found = [_alpha(name, "picture", 0, region) for region in regions for name in _ALPHA]
        return (*found, *(_layer(name, "picture", 0) for name in _LAYER if colour))
    if task not in TASKS:
        extra = (_RECOMPOSITION,) if task == "stack" else ()
        return (*(_layer(name, "layers", None) for name in _LAYER), *extra)
    row, found = TASKS[task], []
    decided = row.family in ("matting", "decomposition")
    for index, role in enumerate(row.targets):
        if role == "foreground" and decided:
            found += [_alpha(name, role, index) for name in _ALPHA]
            if row.guide_role == "trimap":
                found += [_alpha(name, role, index, "_unknown") for name in _ALPHA]
        found += [_layer(name, role, index) for name in _LAYER if name != "soft_iou" or role == "foreground"]
    if row.family == "decomposition":
        found.append(_RECOMPOSITION)
    return (*found, _ENERGY) if is_open(task) else tuple(found)


def measure(name: str, task: str) -> Measure:
    """The measure of that name."""
    return next(row for row in measures_of(task) if row.name == name)


def _alpha(name: str, role: str, index: int, where: str = "") -> Measure:
    words, function, factor = _ALPHA[name]

    def value(case: Case, answers: list[Layers]) -> float:
        region = metrics.unknown(case.inputs[-1][0]) if where else None
        return fmean(function(layers[index][3], case.targets[index][3], region) for layers in answers)

    return Measure(f"{role}_{name}{where}", words + (", unknown region" if where else ""), False, value, factor)


def _layer(name: str, role: str, index: int | None) -> Measure:
    words, function, higher = _LAYER[name]

    def value(case: Case, answers: list[Layers]) -> float:
        chosen = range(len(case.targets)) if index is None else [index]
        return fmean(function(layers[k], case.targets[k]) for layers in answers for k in chosen)

    return Measure(f"{role}_{name}", f"{role} {words}", higher, value)


def _copied(case: Case) -> Layers:
    """The input's picture for every layer; grey where there is no picture."""
    if not case.inputs:
        return [grey_layer(torch.full_like(truth[3], 0.5)) for truth in case.targets]
    return [resize(case.inputs[0], size_of(truth)) for truth in case.targets]


def _opaque(case: Case) -> Layers:
    """The same without its alpha."""
    return [opaque(layer[:3]) for layer in _copied(case)]


def _empty(case: Case) -> Layers:
    """Nothing at all."""
    return [torch.zeros_like(truth) for truth in case.targets]


# name -> an answer that takes no model
NAIVE: dict[str, Callable[[Case], Layers]] = {"copy": _copied, "opaque": _opaque, "empty": _empty}
