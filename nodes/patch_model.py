"""OmniAlpha Patch Model: layer positions and guidance for a Qwen-Image MODEL."""

from comfy_api.v0_0_2 import io

from .adapters import guidance, positions
from .adapters.inputs import chosen
from .adapters.wires import CATEGORY

AXES = {"MSRoPE-BiL": "bil", "2D (experiment)": "2d"}


class OmniAlphaPatchModel(io.ComfyNode):
    """Puts the patches on a clone; the MODEL that comes in stays as it is."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaPatchModel",
            display_name="OmniAlpha Patch Model",
            category=f"{CATEGORY}/sampling",
            description=(
                "Teaches a Qwen-Image-Edit MODEL to tell layers apart (MSRoPE-BiL) and to rescale guidance as "
                "OmniAlpha does. Put it in front of the guider. 'OmniAlpha Task' does this itself."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Qwen-Image-Edit-2509 with the OmniAlpha LoRA, or micro."),
                io.Boolean.Input(
                    "rescale_guidance",
                    default=True,
                    tooltip="Under guidance, keep the length of each token's prediction. Not the same as 'CFGNorm'.",
                ),
                io.Combo.Input(
                    "layer_axis",
                    options=list(AXES),
                    default=next(iter(AXES)),
                    tooltip="MSRoPE-BiL is what the model was trained with; 2D puts all layers at one place.",
                ),
            ],
            outputs=[io.Model.Output("model_out", display_name="MODEL")],
        )

    @classmethod
    def execute(cls, model, rescale_guidance, layer_axis) -> io.NodeOutput:
        patched = positions.install(model, AXES[chosen(layer_axis, AXES, "layer_axis")])
        if rescale_guidance:
            guidance.install(patched)
        return io.NodeOutput(patched)
