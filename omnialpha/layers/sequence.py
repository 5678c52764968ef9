"""Layer sequences: what the artist asked for, fitted to a checkpoint, and packed into tokens.

The model sees one sequence `[text | target_1 ... target_m | input_1 ... input_n]`; each layer's latent is cut into 2x2
patches of 64 values (paper section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..checks import Size, check_finite, check_layer, check_size, size_of
from ..errors import OmniAlphaError
from .resizing import FITS, Frame, fit_size


@dataclass(frozen=True, eq=False)
class FittedSequence:
    """A layer sequence at the sizes one checkpoint works at.

    Attributes:
        inputs: input layers [4, H, W], in order, each at its own fitted size.
        targets: number of layers to generate.
        size: (height, width) of every target, in pixels.
        frame: brings a generated layer back into the artist's frame with `frame.undo`.
    """

    inputs: list[Tensor]
    targets: int
    size: Size
    frame: Frame

    def restore(self, layers: list[Tensor]) -> list[Tensor]:
        """Generated layers [4, *size] in the frame that went in."""
        return [self.frame.undo(layer) for layer in layers]


@dataclass(frozen=True, eq=False)
class LayerSequence:
    """What the artist asked for, before any checkpoint has its say.

    Attributes:
        layers: input layers [4, H, W] in [0, 1], straight alpha, any sizes; may be empty.
        targets: number of layers to generate, at least 1.
        size: (height, width) to work at, in pixels, or None to follow input 0 and the checkpoint's pixel budget.
        fit: "scale", "pad" or "exact", see `Frame`.

    Raises:
        OmniAlphaError: no target, unknown fit, an impossible size, or an input that is not a layer or holds NaN.
    """

    layers: list[Tensor] = field(default_factory=list)
    targets: int = 1
    size: Size | None = None
    fit: str = "scale"

    def __post_init__(self):
        if self.targets < 1:
            raise OmniAlphaError(f"A sequence needs at least 1 layer to generate, got {self.targets}.")
        if self.fit not in FITS:
            raise OmniAlphaError(f"Unknown fit '{self.fit}', expected one of: {', '.join(FITS)}.")
        if self.size is not None:
            check_size(self.size, "The size to work at")
        for index, layer in enumerate(self.layers):
            check_finite(check_layer(layer, f"Input layer {index + 1}"), f"Input layer {index + 1}")

    def fitted(self, pixel_budget: int, multiple: int) -> FittedSequence:
        """The sequence at a checkpoint's sizes; see `frames` for these.

        Args:
            pixel_budget: pixels that the checkpoint was trained with, over inputs and targets together.
            multiple: what the sides have to be divisible by.

        Raises:
            OmniAlphaError: fit "exact" and a side that is not such a multiple.
        """
        frames = self.frames(pixel_budget, multiple)
        inputs = [own.apply(layer) for own, layer in zip(frames, self.layers, strict=False)]
        return FittedSequence(inputs, self.targets, frames[0].size, frames[0])

    def frames(self, pixel_budget: int, multiple: int) -> list[Frame]:
        """How each input is fitted to a checkpoint; the first frame is that of the targets, also without inputs.

        The budget is shared evenly by all n + m layers. Each input keeps its own aspect; targets take the size of input
        0, or are square without inputs. An explicit `size` goes, rounded to the multiple, to the targets and to all
        inputs as large as input 0; it is the artist's word and overrides the budget, and so does fit "exact", where
        pictures are used at their own size. Results go back to input 0's frame, or to the explicit size where there is
        no input. Arguments and errors are those of `fitted`.
        """
        sources = [size_of(layer) for layer in self.layers]
        pixels = pixel_budget / (len(sources) + self.targets)
        if not sources:
            return [self._blank_frame(pixels, multiple)]
        sizes = [self._working_size(source, sources[0], pixels, multiple) for source in sources]
        return [Frame(source, size, self.fit) for source, size in zip(sources, sizes, strict=True)]

    def _working_size(self, source: Size, first: Size, pixels: float, multiple: int) -> Size:
        """Size of an input in the model."""
        if self.size is not None and source == first:
            return round_size(self.size, multiple)
        if self.fit == "exact":
            return _exact_size(source, multiple)
        return fit_size(*source, pixels, multiple)

    def _blank_frame(self, pixels: float, multiple: int) -> Frame:
        """Frame of a sequence without inputs."""
        if self.size is None:
            square = fit_size(1, 1, pixels, multiple)
            return Frame(square, square, self.fit)
        source = check_size(self.size)
        return Frame(source, round_size(source, multiple), self.fit)


def round_size(size: Size, multiple: int) -> Size:
    """Each side to its nearest multiple, one multiple at least."""
    height, width = (max(multiple, round(side / multiple) * multiple) for side in size)
    return height, width


def _exact_size(source: Size, multiple: int) -> Size:
    """`source`, if its sides are multiples."""
    if any(side % multiple for side in source):
        near = round_size(source, multiple)
        raise OmniAlphaError(
            f"Fit 'exact' needs sides that are multiples of {multiple}; a picture is {source[1]}x{source[0]} pixels "
            f"(width x height). Use fit 'scale' or 'pad', or resize it, for example to {near[1]}x{near[0]}."
        )
    return source
