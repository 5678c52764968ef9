"""The nodes of ComfyUI-OmniAlpha, one file per step of an artist's graph.

A node is a schema and a call into `omnialpha` or ComfyUI; what both need to understand each other is in `adapters`.
Node ids and input names are a contract with every shared workflow: inputs are only ever appended, optional, with
defaults.
"""

from comfy_api.v0_0_2 import ComfyExtension, io

from .adapters import model_folders
from .alpha import OmniAlphaAlpha
from .composite_layers import OmniAlphaCompositeLayers
from .decode_layers import OmniAlphaDecodeLayers
from .edit_layers import OmniAlphaEditLayers
from .encode_layers import OmniAlphaEncodeLayers
from .instruct import OmniAlphaInstruct
from .keep_pixels import OmniAlphaKeepPixels
from .layer import OmniAlphaLayer
from .load_checkpoint import OmniAlphaLoadCheckpoint
from .load_layers import OmniAlphaLoadLayers
from .load_layers_from_folder import OmniAlphaLoadLayersFromFolder
from .load_vae import OmniAlphaLoadVAE
from .patch_model import OmniAlphaPatchModel
from .preview_layers import OmniAlphaPreviewLayers
from .refine_matte import OmniAlphaRefineMatte
from .save_layers import OmniAlphaSaveLayers
from .sequence import OmniAlphaSequence
from .sigmas import OmniAlphaSigmas
from .task import OmniAlphaTask
from .trimap import OmniAlphaTrimap
from .window import OmniAlphaWindow

NODES: list[type[io.ComfyNode]] = [
    OmniAlphaTask,
    OmniAlphaLoadCheckpoint,
    OmniAlphaLoadVAE,
    OmniAlphaLayer,
    OmniAlphaSequence,
    OmniAlphaInstruct,
    OmniAlphaPatchModel,
    OmniAlphaSigmas,
    OmniAlphaEncodeLayers,
    OmniAlphaDecodeLayers,
    OmniAlphaCompositeLayers,
    OmniAlphaPreviewLayers,
    OmniAlphaSaveLayers,
    OmniAlphaLoadLayers,
    OmniAlphaLoadLayersFromFolder,
    OmniAlphaEditLayers,
    OmniAlphaAlpha,
    OmniAlphaTrimap,
    OmniAlphaRefineMatte,
    OmniAlphaWindow,
    OmniAlphaKeepPixels,
]


class OmniAlphaExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    """Called by ComfyUI once the pack is imported, in every release; `ComfyExtension.on_load` only since 0.14."""
    model_folders.register()
    return OmniAlphaExtension()
