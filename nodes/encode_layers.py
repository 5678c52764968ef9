"""OmniAlpha Encode Layers: pictures to latents, alpha included."""

import torch
from comfy_api.v0_0_2 import io

from .adapters import layer_vae
from .adapters.images import to_layers
from .adapters.inputs import tile_input
from .adapters.wires import CATEGORY


class OmniAlphaEncodeLayers(io.ComfyNode):
    """One layer at a time: ComfyUI's 'VAE Encode' would take a batch for a video and keep its first picture."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaEncodeLayers",
            display_name="OmniAlpha Encode Layers",
            category=f"{CATEGORY}/layers",
            description="Encodes layers with their alpha, each on its own, into one latent with a frame per layer.",
            inputs=[
                io.Vae.Input("vae", tooltip="RGBA VAE."),
                io.Image.Input("layers", tooltip="RGB or RGBA; both sides multiples of 16 pixels."),
                tile_input(),
            ],
            outputs=[io.Latent.Output("latent", display_name="latent")],
        )

    @classmethod
    def execute(cls, vae, layers, tile_size=0) -> io.NodeOutput:
        latents = layer_vae.encode(vae, to_layers(layers, "The layers"), tile_size)
        return io.NodeOutput({"samples": torch.cat(latents, dim=2)})
