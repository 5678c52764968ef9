"""OmniAlpha Sequence: which layers go in, and how many come out."""

import sys

from comfy_api.v0_0_2 import io

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers.sequence import LayerSequence
from .adapters.images import to_layers
from .adapters.inputs import explicit_size, fit_input, size_inputs
from .adapters.wires import CATEGORY, Sequence

MAX_LAYERS = 16


class OmniAlphaSequence(io.ComfyNode):
    """Only writes down what the artist asks for; the checkpoint's sizes come in at 'OmniAlpha Instruct'."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaSequence",
            display_name="OmniAlpha Sequence",
            category=f"{CATEGORY}/layers",
            description="Puts the layers that the model sees in order and says how many layers it should make.",
            inputs=[
                io.Autogrow.Input(
                    "layers",
                    template=io.Autogrow.TemplatePrefix(_layer_socket(), prefix="layer", min=1, max=MAX_LAYERS),
                    optional=True,
                    tooltip="Input layers in order, RGB or RGBA. A batch counts as that many layers.",
                ),
                io.Int.Input(
                    "targets",
                    default=1,
                    min=1,
                    max=MAX_LAYERS,
                    tooltip="Layers to make, back to front: 2 for background and object.",
                ),
                *size_inputs(),
                fit_input(),
            ],
            outputs=[Sequence.Output("sequence", display_name="sequence")],
        )

    @classmethod
    def validate_inputs(cls, width, height, layers=None):
        # ComfyUI passes growing inputs whether asked for or not; what is connected is known when the graph runs.
        try:
            if None not in (width, height):  # a connected input arrives as None
                explicit_size(width, height)
        except OmniAlphaError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, targets, width, height, fit, layers=None) -> io.NodeOutput:
        size = explicit_size(width, height)
        pictures = [
            layer
            for name, image in (layers or {}).items()
            if image is not None
            for layer in to_layers(image, f"The picture at {name}")
        ]
        if not pictures and size is None:
            raise OmniAlphaError(
                "No layer is connected. Connect the pictures to layer0, layer1, ... or, to draw from text alone, set "
                "width and height."
            )
        return io.NodeOutput(LayerSequence(pictures, targets, size, fit))


def _layer_socket() -> io.Image.Input:
    """One growing socket. Newer releases insist on the first unless it is marked optional, which 0.8 cannot read."""
    knows_optional = hasattr(sys.modules[io.Autogrow.__module__], "DynamicPathsDefaultValue")
    return io.Image.Input("layer", optional=knows_optional)
