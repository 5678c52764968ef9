"""Closed-form and KNN matting, from pymatting: what is possible without training, given a trimap."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from ..data.records import Record
from ..errors import OmniAlphaError
from ..layers.compositing import opaque
from .cases import Case, make_case

# method -> name of pymatting's function. Levin et al. 2008; Chen et al. 2013
METHODS = {"closed_form": "estimate_alpha_cf", "knn": "estimate_alpha_knn"}
# matting_auto gets no trimap; what these methods do given one is there to compare with.
TASKS = ("matting_auto", "matting_trimap", "decomposition_trimap")


class Classical:
    """Answers for one record, each computed once however many tasks ask for it."""

    def __init__(self, record: Record, seed: int):
        self.record, self.seed = record, seed
        self.answer = lru_cache(None)(self._answer)

    def layers(self, method: str, case: Case) -> list[Tensor]:
        """The case's targets as the method gives them, with the trimap that `matting_trimap` has on this record.

        Raises:
            OmniAlphaError: the method cannot use this trimap, or has no result; the message says why.
        """
        background, foreground = self.answer(method)
        return [foreground] if len(case.targets) == 1 else [background, foreground]

    def _answer(self, method: str) -> tuple[Tensor, Tensor]:
        case = make_case(self.record, "matting_trimap", self.seed)
        return cut_out(method, case.inputs[0], case.inputs[1][0])


def cut_out(method: str, picture: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor]:
    """(background, foreground) of a picture [4, H, W], given a trimap [H, W] with 1 = object and 0.5 = unknown.

    Alpha comes from the method, colours from multi-level foreground estimation (Germer et al. 2020).

    Raises:
        OmniAlphaError: the trimap lacks sure object or sure background, or the solver has no finite result.
    """
    import pymatting

    for value, name in ((1, "object"), (0, "background")):
        if not (trimap == value).any():
            raise OmniAlphaError(f"{method} cannot start: the trimap marks no sure {name}.")
    image, known = rearrange(picture[:3], "c h w -> h w c").double().numpy(), trimap.double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            alpha = getattr(pymatting, METHODS[method])(image, known)
            front, back = pymatting.estimate_foreground_ml(image, alpha, return_background=True)
        except (ValueError, ArithmeticError, RuntimeError) as error:
            raise OmniAlphaError(f"{method} failed: {error}") from error
    foreground = torch.cat([_planes(front), torch.from_numpy(alpha)[None].float()]).clamp(0, 1)
    if not torch.isfinite(foreground).all():
        raise OmniAlphaError(f"{method} gave NaN or infinity.")
    return opaque(_planes(back).clamp(0, 1)), foreground


def _planes(rgb) -> Tensor:
    """[h, w, 3] -> [3, H, W] float32."""
    return rearrange(torch.from_numpy(rgb), "h w c -> c h w").float()
