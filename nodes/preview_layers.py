"""OmniAlpha Preview Layers: look at layers in the graph."""

from comfy_api.v0_0_2 import io

from .adapters.files import save_layers
from .adapters.images import to_layers
from .adapters.wires import CATEGORY


class OmniAlphaPreviewLayers(io.ComfyNode):
    """Shows every layer with its transparency; files go to ComfyUI's temp folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaPreviewLayers",
            display_name="OmniAlpha Preview Layers",
            category=f"{CATEGORY}/layers",
            description="Shows each layer of a batch with its transparency.",
            inputs=[io.Image.Input("layers", tooltip="RGBA layers, back to front.")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, layers) -> io.NodeOutput:
        saved = save_layers(to_layers(layers, "The layers"), "OmniAlpha.preview", io.FolderType.temp, cls.hidden)
        return io.NodeOutput(ui={"images": saved})
