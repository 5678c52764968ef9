"""OmniAlpha Load Checkpoint: MODEL, CLIP and VAE from one folder."""

from comfy_api.v0_0_2 import io

from ..omnialpha.checkpoint import load_tensors
from ..omnialpha.checkpoint_folder import Checkpoint
from ..omnialpha.json_files import read_json
from .adapters import folders
from .adapters.layer_vae import build_vae
from .adapters.lora import apply_lora
from .adapters.settings import attach
from .adapters.text_encoder import load_text_encoder
from .adapters.transformer import latent_statistics, load_transformer
from .adapters.wires import CATEGORY


class OmniAlphaLoadCheckpoint(io.ComfyNode):
    """Loads micro, or any folder in diffusers layout, whatever its sizes."""

    @classmethod
    def define_schema(cls):
        names = folders.checkpoint_names()
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
        found = Checkpoint(folders.checkpoint_folder(checkpoint)).check()
        folder, settings = found.folder, found.settings
        vae = build_vae(load_tensors(found.vae), f"{checkpoint}/{found.vae.name}")
        clip = load_text_encoder(folder / "text_encoder", folder / "tokenizer")
        config = found.vae / "config.json"
        statistics = latent_statistics(read_json(config)) if config.is_file() else None
        model = load_transformer(folder / "transformer", statistics)
        if found.lora is not None:
            model = apply_lora(model, load_tensors(found.lora), f"{checkpoint}/{found.lora.name}")
        attach(settings, model, clip.patcher, vae.patcher)
        return io.NodeOutput(model, clip, vae)
