"""OmniAlpha Composite Layers: layers back to one picture."""

from comfy_api.v0_0_2 import io
from PIL import ImageColor

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers.compositing import flatten, opaque, squares
from .adapters.images import through_bytes, to_image, to_layers
from .adapters.inputs import chosen
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
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to lay behind all layers, of their size. One, or as many as wanted: each gets "
                    "its own composite.",
                ),
                io.Boolean.Input(
                    "linear_light",
                    default=False,
                    optional=True,
                    tooltip="Mix colours as light does. Off: as image editors and browsers do by default.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image")],
        )

    @classmethod
    def execute(cls, layers, background, colour="#808080", image=None, linear_light=False) -> io.NodeOutput:
        chosen(background, BACKGROUNDS, "background")
        layers = to_layers(layers, "The layers")
        backs = [[back] for back in to_layers(image, "The picture behind")] if image is not None else [[]]
        rgb = (
            None
            if background in ("transparent", "checkerboard")
            else _rgb(colour if background == "colour" else background)
        )
        flats = [_composite([*back, *layers], background, rgb, linear_light) for back in backs]
        return io.NodeOutput(to_image(through_bytes(flats)))


def _composite(layers: list, background: str, rgb: tuple | None, linear_light: bool):
    """Layers over each other and the background: [4, H, W], or [3, H, W] where that is opaque."""
    if background == "transparent":
        return flatten(layers, linear_light)
    under = layers[0].new_tensor(rgb)[:, None, None].expand_as(layers[0][:3]) if rgb else squares(layers[0])
    return flatten([opaque(under), *layers], linear_light)[:3]


def _rgb(colour: str) -> tuple[float, ...]:
    try:
        return tuple(value / 255 for value in ImageColor.getrgb(colour.strip())[:3])
    except ValueError as error:
        raise OmniAlphaError(f"'{colour}' is not a colour. Give a name such as 'teal', or #rrggbb.") from error
