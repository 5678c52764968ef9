"""OmniAlpha Composite Layers: layers back to one picture."""

from comfy_api.v0_0_2 import io
from PIL import ImageColor

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers import checkerboard, flatten, over_colour
from .adapters.images import to_bytes_exactly, to_image, to_layers
from .adapters.wires import CATEGORY

BACKGROUNDS = ("transparent", "white", "black", "checkerboard", "colour")


class OmniAlphaCompositeLayers(io.ComfyNode):
    """Lays a batch of layers over each other, the first at the back."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaCompositeLayers",
            display_name="OmniAlpha Composite Layers",
            category=f"{CATEGORY}/layers",
            description="Flattens layers, back to front, onto nothing, a colour or a checkerboard.",
            inputs=[
                io.Image.Input("layers", tooltip="RGBA layers, back to front."),
                io.Combo.Input(
                    "background",
                    options=list(BACKGROUNDS),
                    default=BACKGROUNDS[0],
                    tooltip="What shows where all layers are transparent. 'transparent' gives RGBA, the others RGB.",
                ),
                io.String.Input(
                    "colour",
                    default="#808080",
                    optional=True,
                    tooltip="For 'colour': a name or #rrggbb, as on web pages.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image")],
        )

    @classmethod
    def execute(cls, layers, background, colour="#808080") -> io.NodeOutput:
        flat = flatten(to_layers(layers, "The layers"))
        if background == "checkerboard":
            flat = checkerboard(flat)
        elif background != "transparent":
            flat = over_colour(flat, _rgb(colour if background == "colour" else background))
        return io.NodeOutput(to_image(to_bytes_exactly([flat])))


def _rgb(colour: str) -> tuple[float, ...]:
    try:
        return tuple(value / 255 for value in ImageColor.getrgb(colour.strip())[:3])
    except ValueError as error:
        raise OmniAlphaError(f"'{colour}' is not a colour. Give a name such as 'teal', or #rrggbb.") from error
