"""OmniAlpha Load Checkpoint: MODEL, CLIP and VAE from one folder."""

from comfy_api.v0_0_2 import io

from ..omnialpha.checkpoint import check_folder, load_tensors
from ..omnialpha.settings import read_json, read_settings
from .adapters import folders
from .adapters.layer_vae import build_vae
from .adapters.settings import attach
from .adapters.text_encoder import load_text_encoder
from .adapters.transformer import latent_statistics, load_transformer
from .adapters.wires import CATEGORY


class OmniAlphaLoadCheckpoint(io.ComfyNode):
    """Loads micro, or any folder in diffusers layout, whatever its sizes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaLoadCheckpoint",
            display_name="OmniAlpha Load Checkpoint",
            category=f"{CATEGORY}/loaders",
            description=(
                "Loads a whole OmniAlpha checkpoint: 'micro', the small one that comes with this pack, or a folder in "
                "diffusers layout under models/omnialpha. Full-size fp8 or GGUF files load with ComfyUI's own loaders."
            ),
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=folders.checkpoint_names(),
                    default=folders.checkpoint_names()[0],
                    tooltip="micro, or a folder with transformer, vae, text_encoder and tokenizer in models/omnialpha.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model", display_name="MODEL", tooltip="Not patched yet; the task node does it itself."
                ),
                io.Clip.Output("clip", display_name="CLIP"),
                io.Vae.Output("vae", display_name="VAE", tooltip="Four channels: colour and alpha."),
            ],
        )

    @classmethod
    def execute(cls, checkpoint) -> io.NodeOutput:
        folder = folders.checkpoint_folder(checkpoint)
        check_folder(folder)
        settings = read_settings(folder)
        vae_config = folder / "vae" / "config.json"
        statistics = latent_statistics(read_json(vae_config)) if vae_config.is_file() else None
        vae = build_vae(load_tensors(folder / "vae"), f"{checkpoint}/vae")
        clip = load_text_encoder(folder / "text_encoder", folder / "tokenizer")
        model = load_transformer(folder / "transformer", statistics)
        attach(settings, model, clip.patcher, vae.patcher)
        return io.NodeOutput(model, clip, vae)
