"""The nodes of ComfyUI-OmniAlpha, one file per step of an artist's graph.

A node is a schema and a call into `omnialpha` or ComfyUI; what both need to understand each other is in `adapters`.
Node ids and input names are a contract with every shared workflow: inputs are only ever appended, optional, with
defaults.
"""

from comfy_api.v0_0_2 import ComfyExtension, io

from .adapters import folders
from .composite_layers import OmniAlphaCompositeLayers
from .decode_layers import OmniAlphaDecodeLayers
from .encode_layers import OmniAlphaEncodeLayers
from .instruct import OmniAlphaInstruct
from .layer import OmniAlphaLayer
from .load_checkpoint import OmniAlphaLoadCheckpoint
from .load_vae import OmniAlphaLoadVAE
from .patch_model import OmniAlphaPatchModel
from .preview_layers import OmniAlphaPreviewLayers
from .save_layers import OmniAlphaSaveLayers
from .sequence import OmniAlphaSequence
from .sigmas import OmniAlphaSigmas
from .task import OmniAlphaTask

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
]


class OmniAlphaExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    """Called by ComfyUI once the pack is imported. (`ComfyExtension.on_load` is not: ComfyUI 0.8 never calls it.)"""
    folders.register()
    return OmniAlphaExtension()
