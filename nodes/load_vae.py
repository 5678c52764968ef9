"""OmniAlpha Load VAE: the RGBA VAE in either key layout, or one made from an RGB VAE."""

from comfy_api.v0_0_2 import io

from .adapters import model_folders
from .adapters.layer_vae import load_vae
from .adapters.wires import CATEGORY


class OmniAlphaLoadVAE(io.ComfyNode):
    """ComfyUI's own VAE loader fails on diffusers' key names, under which the public RGBA VAE is published."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaLoadVAE",
            display_name="OmniAlpha Load VAE",
            category=f"{CATEGORY}/loaders",
            description="Loads OmniAlpha's RGBA VAE, whatever its key names, or turns Qwen-Image's RGB VAE into one.",
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=model_folders.vae_names(),
                    tooltip="A file of models/vae, or one with 'vae' in its path under models/omnialpha.",
                ),
                io.Boolean.Input(
                    "opaque_init",
                    default=False,
                    tooltip="Lets an RGB VAE through by adding an alpha channel that always decodes to opaque "
                    "(the paper's starting point of training). RGBA files are loaded as they are.",
                ),
            ],
            outputs=[io.Vae.Output("vae", display_name="VAE", tooltip="Four channels: colour and alpha.")],
        )

    @classmethod
    def execute(cls, vae_name, opaque_init) -> io.NodeOutput:
        return io.NodeOutput(load_vae(model_folders.vae_path(vae_name), vae_name, opaque_init))
