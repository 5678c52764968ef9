"""OmniAlpha Save Layers: one PNG per layer, or one layered file."""

from comfy_api.v0_0_2 import io

from ..omnialpha.files.formats import FORMATS
from ..omnialpha.files.names import parse_names
from ..omnialpha.files.stack import Stack
from .adapters.images import names_of, to_layers
from .adapters.output_stacks import save_stack
from .adapters.wires import CATEGORY


class OmniAlphaSaveLayers(io.ComfyNode):
    """Writes rounded RGBA with the workflow inside, never half a file, and never over another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaSaveLayers",
            display_name="OmniAlpha Save Layers",
            category=f"{CATEGORY}/layers",
            description="Saves the layers of a batch, back to front, with the workflow: as PNGs, PSD or OpenRaster.",
            inputs=[
                io.Image.Input("layers", tooltip="RGBA layers, back to front."),
                io.String.Input(
                    "filename_prefix",
                    default="OmniAlpha",
                    tooltip="Under ComfyUI's output folder; may hold subfolders and %year%, %month%, %day%.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="png",
                    optional=True,
                    tooltip="\n".join(f"{name}: {row.help}" for name, row in FORMATS.items()),
                ),
                io.String.Input(
                    "names",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Of the layers in the file, or of the files, back to front: one per line, or all on one "
                    "line with commas between them. Empty: as the layers are called, else background, layer 1, ...",
                ),
                io.Boolean.Input(
                    "numbered",
                    default=True,
                    optional=True,
                    tooltip="Count up with every run. Off: the files are called exactly as said here, and a run stops "
                    "where one of them exists.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "paths", display_name="paths", is_output_list=True, tooltip="The files written, back to front."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, layers, filename_prefix, format="png", names="", numbered=True) -> io.NodeOutput:
        known, layers = names_of(layers), [layer.cpu() for layer in to_layers(layers, "The layers")]
        stack = Stack(layers, parse_names(names, len(layers), known))
        paths, shown = save_stack(stack, filename_prefix, format, numbered, cls.hidden)
        return io.NodeOutput(paths, ui=shown)
