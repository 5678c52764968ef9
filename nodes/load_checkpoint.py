"""OmniAlpha Load Checkpoint: MODEL, CLIP and VAE from one folder."""

from dataclasses import replace

from comfy_api.v0_0_2 import io

from ..omnialpha.checkpoint import check_folder
from ..omnialpha.settings import FILE_NAME, PUBLIC, read_settings
from ..omnialpha.vae_weights import read_statistics
from .adapters import folders
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
        folder = folders.checkpoint_folder(checkpoint)
        # The public checkpoint is Qwen-Image-Edit-2509's folder plus these two.
        rgba_vae, lora = folder / "rgba_vae", folder / "lora"
        vae_folder = rgba_vae if rgba_vae.is_dir() else folder / "vae"
        check_folder(folder, vae_elsewhere=rgba_vae.is_dir())
        settings, statistics = read_settings(folder), read_statistics(vae_folder)
        vae = load_vae(vae_folder, f"{checkpoint}/{vae_folder.name}")
        clip = load_text_encoder(folder / "text_encoder", folder / "tokenizer")
        model = load_transformer(folder / "transformer", statistics)
        if lora.is_dir():
            model = apply_lora(model, lora)
            if not (folder / FILE_NAME).is_file():
                settings = replace(settings, tasks=PUBLIC)
        attach(settings, model, clip.patcher, vae.patcher)
        return io.NodeOutput(model, clip, vae)
