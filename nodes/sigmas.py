"""OmniAlpha Sigmas: the noise levels of a run."""

from comfy_api.v0_0_2 import io

from ..omnialpha.checkpoint.schedule import Schedule
from ..omnialpha.model.sampling import sigmas
from .adapters.inputs import steps_input
from .adapters.layer_vae import layer_latents
from .adapters.settings import settings_of, stated_settings
from .adapters.wires import CATEGORY


class OmniAlphaSigmas(io.ComfyNode):
    """Qwen-Image's schedule, shifted by the number of tokens of all layers together."""

    @classmethod
    def define_schema(cls):
        default = Schedule()
        return io.Schema(
            node_id="OmniAlphaSigmas",
            display_name="OmniAlpha Sigmas",
            category=f"{CATEGORY}/sampling",
            description="The noise levels OmniAlpha is sampled at; they depend on the layers' number and size.",
            inputs=[
                io.Latent.Input("latent", tooltip="The empty latent of 'OmniAlpha Instruct'."),
                steps_input(
                    "A checkpoint may ask for few because a picture decides most; drawing from text wants 20 or more."
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Where the checkpoint's schedule and steps come from. A checkpoint that states a schedule "
                    "overrides the three numbers below.",
                ),
                _number("base_shift", default.base_shift, "Shift at 256 tokens."),
                _number("max_shift", default.max_shift, "Shift at 8192 tokens."),
                _number(
                    "terminal", default.terminal or 0.0, "Last noise level before 0; 0 leaves the levels unstretched."
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", display_name="SIGMAS")],
        )

    @classmethod
    def execute(
        cls,
        latent,
        steps,
        model=None,
        base_shift=Schedule.base_shift,
        max_shift=Schedule.max_shift,
        terminal=Schedule.terminal,
    ) -> io.NodeOutput:
        stated = stated_settings(model)
        schedule = stated.schedule if stated else Schedule(base_shift, max_shift, terminal=terminal or None)
        layers = layer_latents(latent["samples"])
        h, w = layers[0].shape[-2:]
        tokens = len(layers) // latent["samples"].shape[0] * (-(-h // 2)) * (-(-w // 2))
        return io.NodeOutput(sigmas(steps or settings_of(model).steps, tokens, schedule))


def _number(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=10.0, step=0.01, optional=True, tooltip=tooltip)
