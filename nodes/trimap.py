"""OmniAlpha Trimap: what is surely object, what surely is not, and a band to be found out."""

import torch
from comfy_api.v0_0_2 import io

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers.compositing import grey_layer, trimap
from .adapters.images import object_planes, to_image, to_layers
from .adapters.inputs import OPAQUE, polarity_input
from .adapters.output_pictures import save_layers
from .adapters.wires import CATEGORY


class OmniAlphaTrimap(io.ComfyNode):
    """Made from alpha or from a mask; shown on the node."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaTrimap",
            display_name="OmniAlpha Trimap",
            category=f"{CATEGORY}/layers",
            description="Makes a trimap of a layer's alpha or of a mask: a guide for the tasks by trimap.",
            inputs=[
                io.Image.Input("layers", optional=True, tooltip="RGBA layers; their alpha counts."),
                io.Mask.Input("mask", optional=True, tooltip="In place of layers."),
                polarity_input(OPAQUE),
                io.Int.Input(
                    "width",
                    default=10,
                    min=0,
                    max=512,
                    optional=True,
                    tooltip="How far the unknown band reaches to either side of the edge, in pixels.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "trimap",
                    display_name="trimap (1 = object)",
                    tooltip="1 object, 0 background, 0.5 unknown: connect it to 'guide'.",
                ),
                io.Image.Output("preview", display_name="preview", tooltip="The trimap as a grey picture."),
            ],
        )

    @classmethod
    def execute(cls, layers=None, mask=None, mask_polarity=OPAQUE, width=10) -> io.NodeOutput:
        if mask is not None:
            planes = object_planes(mask, mask_polarity)
        elif layers is not None:
            planes = [layer[3] for layer in to_layers(layers, "The layers")]
        else:
            raise OmniAlphaError("Nothing is connected. Connect layers, whose alpha counts, or a mask.")
        trimaps = [trimap(plane, width) for plane in planes]
        grey = [grey_layer(plane) for plane in trimaps]
        shown = save_layers(grey, "OmniAlpha.trimap", io.FolderType.temp, None)
        return io.NodeOutput(torch.stack(trimaps), to_image([layer[:3] for layer in grey]), ui={"images": shown})
