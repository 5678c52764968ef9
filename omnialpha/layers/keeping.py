"""The picture's own pixels in what a run gives.

The model redraws the whole picture, at its own size and in its own hues. Wherever a layer shows what the picture
shows, the picture has better pixels; the model's are for what is hidden, new or changed. What that means is told from
the roles of a task: an object out of a composite, a background, a composite, or layers that recompose to the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checks import Size, check_layer, check_size, size_of
from ..errors import OmniAlphaError
from ..progress import Progress, Watch
from ..tasks import Task
from .changes import TOUCHED, changed, difference, fitted, patch_weight, pixels_per_cell
from .closed_form import cell_means
from .compositing import over
from .foreground import background_colour, foreground_colour
from .refining import refine_alpha
from .regions import shrink
from .resizing import resize_plane, shows

MARGIN = 1.0  # pixels, as the model saw them, between what a matte calls sure and what is taken for sure
OBJECT, BACKGROUND = 0.95, 0.05  # from and up to which a matte's alpha is taken for sure
NEARLY = 0.01, 0.05  # a share that near to none, or to all, is that: smoothness alone leaves so much of either
OWN = 0.5, 0.85  # alpha from which the object's colour begins to be, and is, the picture's own
GIVE = 0.3  # how far the background gives way, against the object, until the two explain the picture
USUAL = 0.9  # quantile of what a model's background leaves unexplained where there is no object
TAKEN = 3.0, 6.0  # times that from which the object begins to take it, and takes all; less gives large objects a halo
LEAST_TAKEN = 0.1, 0.2  # the two at least


def keep_pixels(
    task: Task | None,
    picture: Tensor | None,
    layers: Sequence[Tensor],
    seen: Size,
    guide: Tensor | None = None,
    round_trip: Tensor | Callable[[], Tensor] | None = None,
    progress: Progress | None = None,
) -> list[Tensor]:
    """A task's layers with the picture's own pixels wherever these show the same.

    Args:
        task: row of the task table; None for a free instruction, whose layers stay the model's.
        picture: [4, H, W] in [0, 1], the picture that went in, at its own size; None where there was none.
        layers: [4, H, W] each, what the model made of it, in the picture's frame, back to front.
        seen: (height, width) at which the model saw the picture (`Frame.inner`).
        guide: [H, W] in [0, 1] with 1 = object, as it was given.
        round_trip: [4, h, w] of any size, the fitted picture encoded and decoded by the VAE, or what gives it when
            called; it is called only for tasks that give a background, or a composite of one: their changes have to be
            told from the VAE's own. Without it the picture itself.
        progress: see `progress.Progress`.

    Returns:
        The layers, [4, H, W] each, in the dtype of the picture.

    Raises:
        OmniAlphaError: layers and picture of different sizes, or as many layers as the task does not have.
        Cancelled: `progress` returned False.
    """
    watch = Watch(progress)
    if task is None or picture is None or not task.inputs:
        return list(layers)
    seen = _check(task, picture, layers, seen)
    layers = [layer.to(picture) for layer in layers]
    guide = None if guide is None else guide.to(picture)
    if task.family == "completion":
        kept = _completed(task, picture, layers, seen, round_trip)
    elif "foreground" not in task.targets:
        kept = [
            keep_background(
                picture,
                layers[0],
                seen,
                unchanged=_unchanged(picture, round_trip),
                guide=guide,
                guide_role=task.guide_role,
            )
        ]
    else:
        if "background" in task.targets:
            kept = decompose(
                picture,
                layers[0],
                layers[1],
                seen,
                unchanged=_unchanged(picture, round_trip),
                guide=guide,
                guide_role=task.guide_role,
                progress=watch,
            )
        else:
            kept = [keep_foreground(picture, layers[0], seen, guide=guide, guide_role=task.guide_role, progress=watch)]
    watch(1.0)
    return kept


def _check(task: Task, picture: Tensor, layers: Sequence[Tensor], seen: Size) -> Size:
    """The size at which the model saw the picture, no larger than that."""
    size = tuple(check_layer(picture, "The picture").shape[1:])
    if len(layers) != len(task.targets):
        raise OmniAlphaError(f"Task '{task.id}' gives {len(task.targets)} layers, got {len(layers)}.")
    for layer in layers:
        if tuple(check_layer(layer).shape[1:]) != size:
            raise OmniAlphaError(
                f"The picture is {size[1]}x{size[0]} and a layer {layer.shape[2]}x{layer.shape[1]} (width x height). "
                f"Bring the layers back into the picture's frame first."
            )
    height, width = (min(pair) for pair in zip(check_size(seen, "The size the model worked at"), size, strict=True))
    return height, width


def _unchanged(picture: Tensor, round_trip: Tensor | Callable[[], Tensor] | None) -> Tensor:
    """The picture as a run that changes nothing would give it."""
    given = round_trip() if callable(round_trip) else round_trip
    return picture if given is None else check_layer(given, "The round trip").to(picture)


def _completed(task: Task, picture: Tensor, layers: list[Tensor], seen: Size, round_trip) -> list[Tensor]:
    """What was given stays where it shows; a new layer is all the model's."""
    if "composite" not in task.targets:
        return layers
    if task.image_role == "foreground":
        return [keep_object(picture, layers[0], seen)]
    return [keep_background(picture, layers[0], seen, _unchanged(picture, round_trip))]


def keep_foreground(
    picture: Tensor,
    matte: Tensor,
    seen: Size,
    guide: Tensor | None = None,
    guide_role: str | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The object out of a picture: alpha with the picture's edges, and colours that the picture gives.

    Where the object is opaque they are the picture's own, exactly. Arguments as for `keep_pixels`; `matte` is the
    model's layer [4, H, W]. A trimap is kept to; without one, one is made of the matte.

    Returns:
        [4, H, W]; an object is never more opaque than the picture.
    """
    watch = Watch(progress)
    share = matte_share(picture, matte, seen, guide=guide, guide_role=guide_role, progress=watch.part(0.0, 0.6))
    return _object(picture, share, object_colour(picture, matte, share, watch.part(0.6, 1.0)))


def matte_share(
    picture: Tensor,
    matte: Tensor,
    seen: Size,
    guide: Tensor | None = None,
    guide_role: str | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """How much of what a picture's pixels show is the object: [H, W] in [0, 1], refined; times their alpha, its own."""
    alpha = picture[3]
    share = torch.where(alpha > 0, (matte[3] / alpha.clamp_min(1e-6)).clamp(max=1), 0)
    known = guide if guide_role == "trimap" else matte_trimap(share, seen, guide if guide_role == "mask" else None)
    fine = refine_alpha(picture[:3], share, seen, known, progress)
    return ((fine - NEARLY[0]) / (1 - sum(NEARLY))).clamp(0, 1)


def matte_trimap(alpha: Tensor, seen: Size, mask: Tensor | None = None) -> Tensor:
    """A trimap [H, W] of a model's alpha: unknown is what is soft, and `MARGIN` of the model's pixels around.

    So is what a precise mask [H, W] says otherwise of: the picture decides.
    """
    width = round(MARGIN * pixels_per_cell(size_of(alpha), seen))
    object_, background = (shrink(sure, width) for sure in (alpha > OBJECT, alpha < BACKGROUND))
    if mask is not None:
        object_, background = object_ & (mask > 0), background & (mask < 1)
    return torch.where(object_, 1.0, torch.where(background, 0.0, 0.5)).to(alpha)


def object_colour(picture: Tensor, matte: Tensor, share: Tensor, progress: Progress | None = None) -> Tensor:
    """The object's own colour [3, H, W]: the picture's where it is alone, and what explains the picture in soft pixels.

    Between the two, from `OWN[0]` to `OWN[1]`, one fades into the other. The model's colours are a faint hint, which
    tells most where the picture shows little of the object.
    """
    found = foreground_colour(picture[:3], share, torch.cat([matte[:3], share[None]]), progress=progress)
    return torch.lerp(found, picture[:3], ((share - OWN[0]) / (OWN[1] - OWN[0])).clamp(0, 1))


def _object(picture: Tensor, share: Tensor, colour: Tensor) -> Tensor:
    alpha = share * picture[3]
    return torch.cat([torch.where(shows(alpha), colour, 0), alpha[None]])


def keep_background(
    picture: Tensor,
    layer: Tensor,
    seen: Size,
    unchanged: Tensor,
    guide: Tensor | None = None,
    guide_role: str | None = None,
) -> Tensor:
    """The picture, with the model's pixels where the run changed something; those fitted to what is around them.

    Args:
        picture, layer, seen, guide: as for `keep_pixels`.
        unchanged: [4, h, w] of any size, the picture as a run that changes nothing would give it.
        guide_role: a rough mask only says where to look; of others all is changed, or nothing.

    Returns:
        [4, H, W], opaque where the picture is opaque all over.
    """
    size = size_of(picture)
    whole = guide_role != "coarse_mask"
    spots = None if guide is None else cell_means(guide, seen) > TOUCHED
    region = changed(difference(layer, unchanged, seen), spots, whole)
    if not region.any():
        return picture
    weight = patch_weight(region, guide if whole else None, size)
    patch = torch.cat([fitted(layer[:3], picture[:3], (weight <= 0).to(picture), seen), layer[3:]])
    if bool((picture[3] == 1).all()):
        patch = torch.cat([patch[:3], torch.ones_like(patch[3:])])
    return _mixed(picture, patch, weight)


def _mixed(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """One layer fading into another where a weight [H, W] goes from 0 to 1, exactly one of them at the ends."""
    alpha = torch.lerp(one[3], other[3], weight)
    share = torch.where(alpha > 0, other[3] * weight / alpha.clamp_min(1e-12), weight)
    return torch.cat([torch.lerp(one[:3], other[:3], share.clamp(max=1)), alpha[None]])


def keep_object(given: Tensor, composite: Tensor, seen: Size) -> Tensor:
    """The composite that the model made round an object, with the object as it was given.

    What the model drew of the object, and of its soft rim, is taken out of the composite first. Shapes are [4, H, W].
    """
    size = size_of(given)
    soft = resize_plane(resize_plane(given[3], seen), size)  # as the model saw it
    behind = background_colour(composite[:3], torch.maximum(given[3], soft))
    return over(given, torch.cat([behind, composite[3:]]))


def decompose(
    picture: Tensor,
    behind: Tensor,
    matte: Tensor,
    seen: Size,
    unchanged: Tensor,
    guide: Tensor | None = None,
    guide_role: str | None = None,
    progress: Progress | None = None,
) -> list[Tensor]:
    """Background and object, which laid over each other are the picture again.

    Where the run has not changed the background, it is the picture; where it has, it is the model's, fitted to what is
    around, and the object takes all that this does not explain. In soft pixels both give way until C = a F + (1 - a) B
    holds. Arguments as for `keep_background`; `matte` is the model's layer [4, H, W].
    """
    watch = Watch(progress)
    share = matte_share(picture, matte, seen, guide=guide, guide_role=guide_role, progress=watch.part(0.0, 0.6))
    spots = cell_means(share, seen) > TOUCHED
    region = changed(difference(behind, unchanged, seen), spots if spots.any() else None)
    weight = torch.maximum(patch_weight(region, None, size_of(share)), (share > 0).to(share))
    patch = fitted(behind[:3], picture[:3], (weight <= 0).to(picture), seen)
    back = torch.lerp(picture[:3], patch, weight)
    share = torch.maximum(share, _unexplained(picture[:3], patch, weight))
    colour = object_colour(picture, matte, share, watch.part(0.6, 1.0))
    soft = share < 1
    colour, back = colour.clone(), back.clone()
    colour[:, soft], back[:, soft] = _explained(picture[:3, soft], colour[:, soft], back[:, soft], share[soft])
    object_ = _object(picture, share, colour)
    alpha = object_[3]
    rest = torch.where(alpha < 1, picture[3] * (1 - share) / (1 - alpha).clamp_min(1e-12), 1).clamp(0, 1)
    return [torch.cat([back, rest[None]]), object_]


def _unexplained(picture: Tensor, patch: Tensor, weight: Tensor) -> Tensor:
    """The object's share [H, W] of a picture where this cannot be the patch: where it is clearly more than what a patch
    leaves unexplained of a background that is in full view."""
    need = least_share(picture, patch)
    view = need[weight <= 0]
    usual = float(view.sort().values[int(USUAL * (len(view) - 1))]) if len(view) else 0.0
    low, high = (max(times * usual, floor) for times, floor in zip(TAKEN, LEAST_TAKEN, strict=True))
    return need * weight * ((need - low) / (high - low)).clamp(0, 1)


def least_share(mixed: Tensor, back: Tensor) -> Tensor:
    """The least alpha [H, W] with which some colour in [0, 1] in front of `back` makes `mixed`, both [3, H, W]."""
    room = torch.where(mixed > back, 1 - back, back)
    return ((mixed - back).abs() / room.clamp_min(1e-6)).amax(dim=0).clamp(max=1)


def _explained(mixed: Tensor, front: Tensor, back: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Two colours [3, N], moved within [0, 1] as little as can be until share front + (1 - share) back is `mixed`."""
    rest = 1 - share
    length = share**2 + GIVE * rest**2
    for _ in range(4):
        off = (mixed - share * front - rest * back) / length
        front, back = (front + share * off).clamp(0, 1), (back + GIVE * rest * off).clamp(0, 1)
    # What one of the two cannot take for being at its end, the other can.
    back = (back + (mixed - share * front - rest * back) / rest.clamp_min(1e-6)).clamp(0, 1)
    front = (front + (mixed - share * front - rest * back) / share.clamp_min(1e-6)).clamp(0, 1)
    return front, back
