"""OmniAlpha Refine Matte: alpha at the picture's own size, and colours without the old background."""

import comfy.model_management
from comfy_api.v0_0_2 import io

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers.refining import refine, seen_size
from .adapters.images import object_planes, through_bytes, to_image, to_layers, to_planes, transparency
from .adapters.inputs import OPAQUE, mask_output, one_each, polarity_input
from .adapters.note import show_note
from .adapters.wires import CATEGORY


class OmniAlphaRefineMatte(io.ComfyNode):
    """The model sees a fitted picture; this brings its matte back to the picture that was fitted."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaRefineMatte",
            display_name="OmniAlpha Refine Matte",
            category=f"{CATEGORY}/layers",
            description=(
                "Follows the full-size picture's edges where the matte is soft, and takes the old background's colour "
                "out of the edges."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The picture that was matted, at full size."),
                io.Image.Input(
                    "matte",
                    optional=True,
                    tooltip="The object as RGBA, of any size, in colours of its own, as OmniAlpha draws it.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="In place of the matte, or where its colours are not to count."
                ),
                polarity_input(OPAQUE),
                io.Int.Input(
                    "worked_at",
                    default=0,
                    min=0,
                    max=16384,
                    optional=True,
                    tooltip="Longer side of the picture as the model saw it, in pixels: about 96 for micro, 724 for "
                    "matting with the public checkpoint. 0: as large as the matte; one that is as large as the picture "
                    "already then keeps its alpha.",
                ),
                io.Mask.Input(
                    "trimap",
                    display_name="trimap (1 = object)",
                    optional=True,
                    tooltip="What is sure: 1 = object, 0 = background, anything between = unknown, as OmniAlpha Trimap "
                    "makes it. The alpha is held to it and sought anew where it is unknown; of help at any size.",
                ),
            ],
            outputs=[
                io.Image.Output("layer", display_name="layer", tooltip="The object, RGBA, as large as the picture."),
                mask_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image, matte=None, mask=None, mask_polarity=OPAQUE, worked_at=0, trimap=None) -> io.NodeOutput:
        mattes = _mattes(matte, mask, mask_polarity)
        pictures = one_each(to_layers(image, "The picture"), len(mattes), "picture", "matte")
        trimaps = one_each([None] if trimap is None else to_planes(trimap), len(mattes), "trimap", "matte")
        sizes = [_seen(picture, matte, worked_at) for picture, matte in zip(pictures, mattes, strict=True)]
        if trimap is None and sizes[0] == pictures[0].shape[1:]:
            note = "worked_at is 0 and the matte as large as the picture: its alpha stays, only colours are refined."
            show_note(cls.hidden.unique_id if cls.hidden else None, note)
        device = comfy.model_management.get_torch_device()
        layers = [
            refine(picture[:3].to(device), each.to(device), size, known if known is None else known.to(device)).cpu()
            for picture, each, size, known in zip(pictures, mattes, sizes, trimaps, strict=True)
        ]
        layers = through_bytes(layers)
        return io.NodeOutput(to_image(layers), transparency(layers))


def _mattes(matte, mask, polarity: str) -> list:
    """Layers [4, h, w], or planes [h, w] where there is a mask."""
    if mask is not None:
        return object_planes(mask, polarity)
    if matte is None:
        raise OmniAlphaError("Nothing to refine is connected. Connect the object to 'matte', or a mask.")
    return to_layers(matte, "The matte")


def _seen(picture, matte, worked_at: int) -> tuple[int, int]:
    """(height, width) at which the model saw the picture."""
    return seen_size(tuple(picture.shape[1:]), worked_at) if worked_at else tuple(matte.shape[-2:])
