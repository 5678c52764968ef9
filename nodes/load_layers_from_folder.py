"""OmniAlpha Load Layers From Folder: pictures of a folder as one stack of layers, or one after the other."""

from comfy_api.v0_0_2 import io

from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.files.formats import list_pictures, read_pictures, read_stack
from ..omnialpha.layers.compositing import clean_hidden as without_hidden
from .adapters.images import to_image, transparency
from .adapters.input_files import SOURCES, confined, root, stamp
from .adapters.inputs import clean_input
from .adapters.wires import CATEGORY


class OmniAlphaLoadLayersFromFolder(io.ComfyNode):
    """For graphs that run without anyone watching: sorted, filtered, with true alpha, within ComfyUI's own folders."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaLoadLayersFromFolder",
            display_name="OmniAlpha Load Layers From Folder",
            category=f"{CATEGORY}/layers",
            description="Loads a folder's pictures with their true alpha, as one stack of layers or one by one.",
            inputs=[
                io.Combo.Input(
                    "source", options=list(SOURCES), default=SOURCES[0], tooltip="Which of ComfyUI's own folders."
                ),
                io.String.Input("folder", default="", tooltip="A folder within it; empty for that folder itself."),
                io.String.Input(
                    "pattern",
                    default="*",
                    tooltip="Which files: * stands for any text, ? for one character, as in layer_*.png.",
                ),
                io.Boolean.Input(
                    "together",
                    default=True,
                    label_on="one stack",
                    label_off="one by one",
                    tooltip="one stack: the pictures, of one size, are the layers, back to front by name. one by one: "
                    "the rest of the graph runs once per file; layered files (.psd, .ora) count as well.",
                ),
                io.Int.Input("start", default=0, min=0, max=10**9, optional=True, tooltip="Files to pass over."),
                io.Int.Input("limit", default=0, min=0, max=10**9, optional=True, tooltip="Files at most; 0: all."),
                clean_input(),
            ],
            outputs=[
                io.Image.Output("layers", display_name="layers", is_output_list=True, tooltip="RGBA, back to front."),
                io.Mask.Output(
                    "mask", display_name="mask (1 = transparent)", is_output_list=True, tooltip="Alpha of each layer."
                ),
                io.String.Output(
                    "names", display_name="names", is_output_list=True, tooltip="Of the layers, one per line."
                ),
                io.String.Output(
                    "files",
                    display_name="files",
                    is_output_list=True,
                    tooltip="One by one: the file's name without its ending. One stack: the folder's name.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, source, folder):
        try:
            if None not in (source, folder):
                confined(folder, root(source))
        except OmniAlphaError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, source, folder, pattern, together, start=0, limit=0, **_):
        try:
            files = _files(source, folder, pattern, together=together, start=start, limit=limit)
            return [stamp(path) for path in files]
        except OmniAlphaError as error:
            return str(error)

    @classmethod
    def execute(cls, source, folder, pattern, together, start=0, limit=0, clean_hidden=True) -> io.NodeOutput:
        files = _files(source, folder, pattern, together=together, start=start, limit=limit)
        if together:
            stacks, titles = [read_pictures(files)], [files[0].parent.name]
        else:
            stacks, titles = [read_stack(file) for file in files], [file.stem for file in files]
        layers = [[without_hidden(x) if clean_hidden else x for x in stack.layers] for stack in stacks]
        return io.NodeOutput(
            [to_image(each, stack.names) for each, stack in zip(layers, stacks)],
            [transparency(each) for each in layers],
            ["\n".join(stack.names) for stack in stacks],
            titles,
        )


def _files(source: str, folder: str, pattern: str, *, together: bool, start: int, limit: int) -> list:
    """The files that are meant, sorted as people count.

    Raises:
        OmniAlphaError: the folder lies elsewhere or does not exist, or none of its files is meant.
    """
    place = confined(folder, root(source))
    if not place.is_dir():
        raise OmniAlphaError(f"There is no folder '{folder}' in ComfyUI's {source} folder.")
    files = list_pictures(place, pattern or "*", layered=not together)
    chosen = files[start : start + limit if limit else None]
    if not chosen:
        raise OmniAlphaError(
            f"No picture in ComfyUI's {source} folder '{folder}' is left: {len(files)} match '{pattern}', and start is "
            f"{start}."
        )
    return chosen
