"""OmniAlpha Alpha: tidy a layer's alpha, and get it out as a mask that is the right way round."""

import torch
from comfy_api.v0_0_2 import io

from ..omnialpha.layers import compositing as operations
from .adapters.images import to_image, to_layers, transparency
from .adapters.inputs import OPAQUE, TRANSPARENT, clean_input, white_is_transparent
from .adapters.wires import CATEGORY


class OmniAlphaAlpha(io.ComfyNode):
    """The counterpart of 'OmniAlpha Layer', which takes masks in."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaAlpha",
            display_name="OmniAlpha Alpha",
            category=f"{CATEGORY}/layers",
            description="Snaps alpha, cleans hidden colours, and gives alpha as a mask in the polarity you choose.",
            inputs=[
                io.Image.Input("layers", tooltip="RGBA layers."),
                io.Int.Input(
                    "transparent_to",
                    default=0,
                    min=0,
                    max=254,
                    tooltip="Alpha up to this, of 255, becomes fully transparent; 0 changes nothing. 5 clears haze.",
                ),
                io.Int.Input(
                    "opaque_from",
                    default=255,
                    min=1,
                    max=255,
                    tooltip="Alpha from this, of 255, becomes opaque; 255 changes nothing. 250 fills thin spots.",
                ),
                clean_input(),
                io.Combo.Input(
                    "mask_polarity",
                    options=[OPAQUE, TRANSPARENT],
                    default=OPAQUE,
                    optional=True,
                    tooltip=f"What white means in the mask that comes out. '{OPAQUE}' selects the object, as guides, "
                    f"inpainting and compositing want it; '{TRANSPARENT}' is what JoinImageWithAlpha wants.",
                ),
            ],
            outputs=[
                io.Image.Output("layers", display_name="layers", tooltip="RGBA, straight alpha."),
                io.Mask.Output("mask", display_name="mask", tooltip="Alpha, in the polarity chosen."),
            ],
        )

    @classmethod
    def execute(cls, layers, transparent_to, opaque_from, clean_hidden=True, mask_polarity=OPAQUE) -> io.NodeOutput:
        layers = [operations.snap_alpha(x, transparent_to, opaque_from) for x in to_layers(layers, "The layers")]
        if clean_hidden:
            layers = [operations.clean_hidden(layer) for layer in layers]
        transparent = white_is_transparent(mask_polarity)
        mask = transparency(layers) if transparent else torch.stack([layer[3] for layer in layers])
        return io.NodeOutput(to_image(layers), mask)
