"""OmniAlpha Load Layers: a picture with its true alpha, or all layers of a PSD or OpenRaster file."""

from comfy_api.v0_0_2 import io

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.files.formats import read_stack
from ..omnialpha.layers.compositing import clean_hidden as without_hidden
from .adapters.images import to_image, transparency
from .adapters.input_files import input_file, input_files, stamp
from .adapters.inputs import clean_input, mask_output
from .adapters.note import doubts_shown
from .adapters.wires import CATEGORY


class OmniAlphaLoadLayers(io.ComfyNode):
    """LoadImage takes colour and alpha apart, turns alpha over and cuts 16 bits down to 8; this does not."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaLoadLayers",
            display_name="OmniAlpha Load Layers",
            category=f"{CATEGORY}/layers",
            description="Loads a picture with its true alpha, or every layer of a PSD or OpenRaster file.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=input_files(),
                    upload=io.UploadType.image,
                    tooltip="A file of ComfyUI's input folder: PNG, WebP, TIFF, ... as one layer, .psd, .psb or .ora "
                    "as all of theirs. Upload one with the button, or drop it on the node.",
                ),
                clean_input(),
                io.Boolean.Input(
                    "hidden_layers", default=False, optional=True, tooltip="Read layers that are switched off, too."
                ),
            ],
            outputs=[
                io.Image.Output("layers", display_name="layers", tooltip="RGBA, straight alpha, back to front."),
                mask_output(),
                io.String.Output("names", display_name="names", tooltip="One per line, back to front."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file):
        # Says itself what is wrong; ComfyUI would only look whether the name was in the list when the page was opened.
        try:
            if file is not None:
                input_file(file)
        except OmniAlphaError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file, **_):
        try:
            return stamp(input_file(file))
        except OmniAlphaError:
            return file

    @classmethod
    def execute(cls, file, clean_hidden=True, hidden_layers=False) -> io.NodeOutput:
        with doubts_shown(cls.hidden.unique_id if cls.hidden else None, "OmniAlpha Load Layers"):
            stack = read_stack(input_file(file), hidden_layers)
        layers = [without_hidden(layer) for layer in stack.layers] if clean_hidden else stack.layers
        return io.NodeOutput(to_image(layers, stack.names), transparency(layers), "\n".join(stack.names))
