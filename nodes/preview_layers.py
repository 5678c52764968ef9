"""OmniAlpha Preview Layers: look at layers in the graph."""

from comfy_api.v0_0_2 import io

from ..omnialpha.files.names import label_layers
from .adapters.images import names_of, to_layers
from .adapters.output_pictures import save_layers
from .adapters.wires import CATEGORY


class OmniAlphaPreviewLayers(io.ComfyNode):
    """Shows every layer with its transparency; files go to ComfyUI's temp folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaPreviewLayers",
            display_name="OmniAlpha Preview Layers",
            category=f"{CATEGORY}/layers",
            description="Shows the layers of a batch over each other: hide some, look at one alone, make one fainter, "
            "change the background, click to enlarge.",
            inputs=[
                io.Image.Input("layers", tooltip="RGBA layers, back to front."),
                io.String.Input(
                    "names",
                    default="",
                    optional=True,
                    tooltip="Of the layers, back to front: one per line, or all on one line with commas between them. "
                    "Empty: as the layers are called, else background, layer 1, ...",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, layers, names="") -> io.NodeOutput:
        known = names_of(layers)
        saved = save_layers(to_layers(layers, "The layers"), "OmniAlpha.preview", io.FolderType.temp, cls.hidden)
        # "images" is what every frontend and client shows; the viewer in web/ lays these files over each other.
        return io.NodeOutput(ui={"images": saved, "omnialpha_names": label_layers(names, len(saved), known)})
