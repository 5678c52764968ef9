"""OmniAlpha Load Checkpoint: MODEL, CLIP and VAE from one folder."""

from comfy_api.v0_0_2 import io

from ..omnialpha.checkpoint.folder import Checkpoint
from ..omnialpha.checkpoint.vae_keys import read_statistics
from .adapters import model_folders
from .adapters.layer_vae import load_vae
from .adapters.lora import apply_lora
from .adapters.settings import attach
from .adapters.text_encoder import load_text_encoder
from .adapters.transformer import load_transformer
from .adapters.wires import CATEGORY


class OmniAlphaLoadCheckpoint(io.ComfyNode):
    """Loads micro, or any folder in diffusers layout, whatever its sizes."""

    @classmethod
    def define_schema(cls):
        names = model_folders.checkpoint_names()
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
                    options=names,
                    default=names[0],
                    tooltip="micro, or a folder with transformer, vae, text_encoder and tokenizer in models/omnialpha. "
                    "OmniAlpha's rgba_vae and lora folders may lie beside them.",
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
        found = Checkpoint(model_folders.checkpoint_folder(checkpoint)).check()
        statistics = read_statistics(found.vae)
        vae = load_vae(found.vae, f"{checkpoint}/{found.vae.name}")
        clip = load_text_encoder(found.folder / "text_encoder", found.folder / "tokenizer")
        model = load_transformer(found.folder / "transformer", statistics)
        if found.lora is not None:
            model = apply_lora(model, found.lora)
        attach(found.settings, model, clip.patcher, vae.patcher)
        return io.NodeOutput(model, clip, vae)
