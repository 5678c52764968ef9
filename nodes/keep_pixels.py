"""OmniAlpha Keep Pixels: the picture's own pixels in what the model made, put back where it was cut out."""

from comfy_api.v0_0_2 import io

from ..omnialpha.checks import size_of
from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers import compositing as operations
from ..omnialpha.layers.looking import drawn_window, finish
from ..omnialpha.layers.sequence import LayerSequence
from ..omnialpha.layers.windows import Window
from ..omnialpha.tasks import PIXELS, TASKS, Task
from .adapters import layer_vae
from .adapters.images import (
    check_same_size,
    one_picture,
    one_plane,
    to_image,
    to_layers,
    transparency,
)
from .adapters.inputs import chosen, mask_output, pixels_input, snap_input
from .adapters.sampling import RunProgress, finishing_device
from .adapters.settings import settings_of
from .adapters.wires import CATEGORY, Sequence

KEEPING = [row.id for row in TASKS.values() if row.keeps]


class OmniAlphaKeepPixels(io.ComfyNode):
    """The last step of a task: the model's pixels stay only where something is hidden, new or changed."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaKeepPixels",
            display_name="OmniAlpha Keep Pixels",
            category=f"{CATEGORY}/layers",
            description=(
                "Gives layers the picture's own pixels wherever they show what the picture shows, at its full size, "
                "and puts what was made in a window back in its place."
            ),
            inputs=[
                io.Vae.Input("vae", tooltip="RGBA VAE, the one that decoded the layers."),
                io.Combo.Input(
                    "task", options=KEEPING, default="matting_mask", tooltip="What was done with the picture."
                ),
                io.Image.Input("image", tooltip="The whole picture."),
                io.Image.Input("layers", tooltip="What the model made, as Decode Layers gives it with the sequence."),
                Sequence.Input("sequence", tooltip="The one the layers were made from, guide included."),
                io.Mask.Input(
                    "window",
                    optional=True,
                    display_name="window (1 = inside)",
                    tooltip="From Window, where the sequence shows a part of the picture. Open: the whole picture.",
                ),
                pixels_input(),
                snap_input(),
            ],
            outputs=[
                io.Image.Output("layers_out", display_name="layers", tooltip="RGBA, straight alpha, back to front."),
                mask_output(),
                io.Image.Output("composite", display_name="composite", tooltip="The layers over each other, RGBA."),
            ],
        )

    @classmethod
    def execute(
        cls, vae, task, image, layers, sequence, window=None, pixels=PIXELS[0], snap_alpha=False
    ) -> io.NodeOutput:
        row = TASKS[chosen(task, KEEPING, "task")]
        layer_vae.check_vae(vae)
        picture, made = operations.clean_hidden(one_picture(image, "The picture")), to_layers(layers, "The layers")
        found = Window.over(size_of(picture))
        if window is not None:
            found = drawn_window(check_same_size(one_plane(window, "The window"), picture, "The window"))
        _check(row, made, sequence, found)
        settings = settings_of(vae.patcher)
        fitted = sequence.fitted(settings.pixel_budget, settings.size_multiple)
        kept = finish(
            row,
            picture,
            made,
            found,
            seen=fitted.frame.inner,
            guide=sequence.layers[1][0] if row.guide_role else None,
            round_trip=lambda: fitted.frame.crop(layer_vae.round_trip(vae, fitted.inputs[0])),
            pixels=pixels,
            progress=RunProgress(1).finishing,
            device=finishing_device(),
        )
        kept = [operations.snap_alpha(layer) for layer in kept] if snap_alpha else kept
        return io.NodeOutput(to_image(kept, row.names), transparency(kept), to_image([operations.flatten(kept)]))


def _check(task: Task, layers: list, sequence: LayerSequence, window: Window) -> None:
    """Makes sure that layers, sequence and window belong together.

    Raises:
        OmniAlphaError: they do not; the message says what was found and what to connect.
    """
    if len(sequence.layers) != len(task.inputs):
        raise OmniAlphaError(
            f"Task '{task.id}' sees {len(task.inputs)} layers ({', '.join(task.inputs)}) and the sequence holds "
            f"{len(sequence.layers)}. Connect the one that the layers were made from."
        )
    if len(layers) != len(task.targets):
        raise OmniAlphaError(f"Task '{task.id}' gives {len(task.targets)} layers; {len(layers)} are connected.")
    part = "the picture" if window.whole else "the window"
    (height, width), (high, wide) = window.size, sequence.layers[0].shape[1:]
    if (high, wide) != window.size:
        raise OmniAlphaError(
            f"The sequence begins with a picture of {wide}x{high} pixels and {part} has {width}x{height} (width x "
            f"height). Make the sequence of Window's image, and connect the same Window's mask here."
        )
    for layer in layers:
        if tuple(layer.shape[1:]) != window.size:
            raise OmniAlphaError(
                f"A layer is {layer.shape[2]}x{layer.shape[1]} pixels and {part} {width}x{height} (width x height). "
                f"Decode it with the sequence connected and restore_frame on."
            )
