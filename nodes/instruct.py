"""OmniAlpha Instruct: what the model is told, and about which layers."""

from comfy_api.v0_0_2 import io

from ..omnialpha.tasks import fill
from .adapters.conditioning import condition
from .adapters.sampling import empty_latent
from .adapters.settings import settings_of
from .adapters.wires import CATEGORY, Sequence


class OmniAlphaInstruct(io.ComfyNode):
    """Fits the layers to the checkpoint, encodes them and the text."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaInstruct",
            display_name="OmniAlpha Instruct",
            category=f"{CATEGORY}/sampling",
            description=(
                "Turns an instruction and a layer sequence into conditioning and an empty latent for ComfyUI's "
                "samplers. Layers are fitted to the sizes the checkpoint was trained with."
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="Qwen2.5-VL."),
                io.Vae.Input("vae", tooltip="RGBA VAE."),
                Sequence.Input("sequence", tooltip="Which layers go in, and how many come out."),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    tooltip="What to make of the layers. 'Picture 1' is layer0, 'Picture 2' layer1, and so on.",
                ),
                io.String.Input("negative", multiline=True, default="", tooltip="What guidance steers away from."),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative_out", display_name="negative"),
                io.Latent.Output("latent", display_name="latent", tooltip="Empty, one frame per layer to make."),
            ],
        )

    @classmethod
    def execute(cls, clip, vae, sequence, instruction, negative) -> io.NodeOutput:
        settings = settings_of(clip.patcher, vae.patcher)
        fitted = sequence.fitted(settings.pixel_budget, settings.size_multiple)
        words = [fill(instruction), " ".join(negative.split())]
        positive, negative_conditioning = condition(clip, vae, fitted, words)
        return io.NodeOutput(positive, negative_conditioning, empty_latent(fitted.targets, fitted.size))
