"""OmniAlpha Layer: a picture and its mask become an RGBA layer."""

import torch
from comfy_api.v0_0_2 import io

from ..omnialpha.layers import compositing as operations
from .adapters.images import check_same_size, is_stand_in, to_image, to_layers, to_planes
from .adapters.inputs import TRANSPARENT, clean_input, one_each, polarity_input, white_is_transparent
from .adapters.wires import CATEGORY


class OmniAlphaLayer(io.ComfyNode):
    """Mends what LoadImage does to pictures with alpha."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaLayer",
            display_name="OmniAlpha Layer",
            category=f"{CATEGORY}/layers",
            description=(
                "Makes an RGBA layer of a picture and its mask. LoadImage takes a file's alpha apart: connect both of "
                "its outputs here to put it together again."
            ),
            inputs=[
                io.Image.Input("image", tooltip="RGB or RGBA; each picture of a batch is a layer."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Becomes the layer's alpha, in place of any the picture has. Same size as the picture. The "
                    "empty 64x64 mask that LoadImage gives for files without alpha counts as none.",
                ),
                polarity_input(),
                clean_input(),
            ],
            outputs=[io.Image.Output("layer", display_name="layer", tooltip="RGBA, straight alpha.")],
        )

    @classmethod
    def execute(cls, image, mask=None, mask_polarity=TRANSPARENT, clean_hidden=True) -> io.NodeOutput:
        layers = to_layers(image)
        planes = to_planes(mask) if mask is not None else []
        if planes and not (is_stand_in(planes) and layers[0].shape[1:] != planes[0].shape):
            layers = _with_alpha(layers, planes, mask_polarity)
        if clean_hidden:
            layers = [operations.clean_hidden(layer) for layer in layers]
        return io.NodeOutput(to_image(layers))


def _with_alpha(layers: list, planes: list, polarity: str) -> list:
    transparent = white_is_transparent(polarity)
    planes = one_each(planes, len(layers), "mask", "picture")
    alphas = [check_same_size(plane, layer, "The mask") for plane, layer in zip(planes, layers, strict=True)]
    return [
        torch.cat([layer[:3], (1 - alpha if transparent else alpha)[None].to(layer.device)])
        for layer, alpha in zip(layers, alphas, strict=True)
    ]
