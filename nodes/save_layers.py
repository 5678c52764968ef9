"""OmniAlpha Save Layers: one PNG per layer."""

from comfy_api.v0_0_2 import io

from .adapters.files import save_layers
from .adapters.images import to_layers
from .adapters.wires import CATEGORY


class OmniAlphaSaveLayers(io.ComfyNode):
    """Writes rounded 8-bit RGBA with the workflow inside, and never half a file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaSaveLayers",
            display_name="OmniAlpha Save Layers",
            category=f"{CATEGORY}/layers",
            description="Saves each layer of a batch as an RGBA PNG that carries the workflow, back to front.",
            inputs=[
                io.Image.Input("layers", tooltip="RGBA layers, back to front."),
                io.String.Input(
                    "filename_prefix",
                    default="OmniAlpha",
                    tooltip="Under ComfyUI's output folder; may hold subfolders and %year%, %month%, %day%.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, layers, filename_prefix) -> io.NodeOutput:
        saved = save_layers(to_layers(layers, "The layers"), filename_prefix, io.FolderType.output, cls.hidden)
        return io.NodeOutput(ui={"images": saved})
