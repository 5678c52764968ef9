"""OmniAlpha Edit Layers: extract, reorder and merge."""

from comfy_api.v0_0_2 import io

from ..omnialpha.files.names import arrange_names, distinct, parse_names
from ..omnialpha.layers.arranging import arrange, parse_order
from .adapters.images import names_of, through_bytes, to_image, to_layers, transparency
from .adapters.inputs import mask_output
from .adapters.wires import CATEGORY


class OmniAlphaEditLayers(io.ComfyNode):
    """One short text says which layers there are to be."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaEditLayers",
            display_name="OmniAlpha Edit Layers",
            category=f"{CATEGORY}/layers",
            description="Extracts, reorders and merges layers of a batch.",
            inputs=[
                io.Image.Input("layers", tooltip="RGBA layers, back to front."),
                io.String.Input(
                    "order",
                    default="",
                    tooltip="The layers wanted, back to front; 0 is the one at the back. '1': only that one. '1, 0': "
                    "the other way round. '2-4': a range. '0+1, 2': the first two merged. -1 is the one in front.",
                ),
                io.String.Input(
                    "names",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Of the layers, back to front: one per line, or all on one line with commas between them. "
                    "Empty: as the layers are called, else background, layer 1, ...",
                ),
            ],
            outputs=[
                io.Image.Output("layers", display_name="layers", tooltip="RGBA, straight alpha, back to front."),
                mask_output(),
                io.String.Output("names", display_name="names", tooltip="The names, in the new order."),
            ],
        )

    @classmethod
    def execute(cls, layers, order, names="") -> io.NodeOutput:
        known, layers = names_of(layers), to_layers(layers, "The layers")
        numbers = parse_order(order, len(layers))
        names = distinct(arrange_names(parse_names(names, len(layers), known), numbers))
        layers = through_bytes(arrange(layers, numbers))
        return io.NodeOutput(to_image(layers, names), transparency(layers), "\n".join(names))
