"""OmniAlpha Window: a closer look, as a step of its own."""

import torch
from comfy_api.v0_0_2 import io

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers.compositing import clean_hidden, grey_layer
from ..omnialpha.layers.looking import drawn_window, find_object
from ..omnialpha.layers.resizing import FITS
from ..omnialpha.layers.sequence import FittedSequence, LayerSequence
from ..omnialpha.layers.windows import Window
from ..omnialpha.tasks import TASKS, Task
from .adapters.images import check_same_size, one_picture, one_plane, to_image, to_layers
from .adapters.inputs import check_connected, chosen, explicit_size, fit_input, size_inputs
from .adapters.settings import settings_of
from .adapters.wires import CATEGORY

LOOKING = [row.id for row in TASKS.values() if row.looks]


class OmniAlphaWindow(io.ComfyNode):
    """Cuts picture and guide alike; 'OmniAlpha Keep Pixels' puts what is made of them back."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaWindow",
            display_name="OmniAlpha Window",
            category=f"{CATEGORY}/layers",
            description=(
                "Cuts a window round the object out of picture and guide, so that the model sees it larger. Where a "
                "window would show hardly more than the picture, it is the whole of it."
            ),
            inputs=[
                io.Vae.Input("vae", tooltip="RGBA VAE. It brings the sizes that its checkpoint works at."),
                io.Combo.Input(
                    "task", options=LOOKING, default="matting_mask", tooltip="What is to be done with the object."
                ),
                io.Image.Input("image", tooltip="The whole picture."),
                io.Mask.Input(
                    "guide",
                    optional=True,
                    display_name="guide (1 = object)",
                    tooltip="For tasks by trimap, mask or coarse mask: it says where the object is.",
                ),
                io.Image.Input(
                    "layers",
                    optional=True,
                    tooltip="For tasks without a guide: what a first pass made of the whole picture, from Decode "
                    "Layers with restore_frame off. It says where the object is.",
                ),
                io.Mask.Input(
                    "window",
                    optional=True,
                    display_name="window (1 = inside)",
                    tooltip="A window of your own, in place of the one sought: the smallest rectangle round all that "
                    "is white in it.",
                ),
                *size_inputs(optional=True),
                fit_input(optional=True),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="image", tooltip="The picture in the window, RGBA."),
                io.Mask.Output(
                    "guide_out",
                    display_name="guide (1 = object)",
                    tooltip="The guide in the window; empty where none is connected.",
                ),
                io.Mask.Output(
                    "window_out",
                    display_name="window (1 = inside)",
                    tooltip="As large as the picture, white in the window, for Keep Pixels.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, vae, task, image, guide=None, layers=None, window=None, width=0, height=0, fit=FITS[0]
    ) -> io.NodeOutput:
        row = TASKS[chosen(task, LOOKING, "task")]
        check_connected(row, image is not None, guide is not None)
        picture = clean_hidden(one_picture(image, "The picture"))
        plane = None if guide is None else check_same_size(one_plane(guide, "The guide"), picture, "The guide")
        if window is not None:
            found = drawn_window(check_same_size(one_plane(window, "The window"), picture, "The window"))
        else:
            seen = [picture, grey_layer(plane)] if row.guide_role and plane is not None else [picture]
            sequence = LayerSequence(seen, len(row.targets), explicit_size(width, height), fit)
            found = _find(sequence, row, layers, settings_of(vae.patcher))
        cut = torch.zeros(found.size) if plane is None else found.cut(plane)
        inside = found.put(torch.ones(found.size), torch.zeros(found.picture))
        return io.NodeOutput(to_image([found.cut(picture)]), cut[None], inside[None])


def _find(sequence: LayerSequence, task: Task, layers, settings) -> Window:
    budget = settings.pixel_budget, settings.size_multiple
    if task.guide_role:
        return find_object(sequence, task, *budget)
    if layers is None:
        raise OmniAlphaError(
            f"Task '{task.id}' has no guide that says where the object is. Connect the layers of a first pass over the "
            f"whole picture to 'layers', or a mask you have drawn to 'window'."
        )
    return find_object(sequence, task, *budget, _first(to_layers(layers, "The layers"), sequence.fitted(*budget), task))


def _first(layers: list, fitted: FittedSequence, task: Task) -> list:
    """The layers of a first pass as the model made them; those that were brought to the picture's size since go back.

    Raises:
        OmniAlphaError: too many, too few, or of another size.
    """
    if len(layers) != len(task.targets):
        raise OmniAlphaError(f"Task '{task.id}' gives {len(task.targets)} layers; the first pass has {len(layers)}.")
    size = tuple(layers[0].shape[1:])
    if size == tuple(fitted.size):
        return layers
    if size == tuple(fitted.frame.source):
        return [fitted.frame.apply(layer) for layer in layers]
    (h, w), (height, width), (tall, wide) = size, fitted.size, fitted.frame.source
    raise OmniAlphaError(
        f"The layers of the first pass are {w}x{h} pixels. Expected are {width}x{height}, as this checkpoint makes of "
        f"the picture, or the picture's own {wide}x{tall} (width x height). Connect what was made of this very picture."
    )
