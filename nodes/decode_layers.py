"""OmniAlpha Decode Layers: latents to layers, back in the frame that went in."""

from comfy_api.v0_0_2 import io

from ..omnialpha.checks import size_of
from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers import compositing as operations
from ..omnialpha.layers.resizing import Frame
from ..omnialpha.layers.sequence import LayerSequence
from .adapters import layer_vae
from .adapters.images import to_image, transparency
from .adapters.inputs import mask_output, snap_input, tile_input
from .adapters.settings import stated_settings
from .adapters.wires import CATEGORY, Sequence


class OmniAlphaDecodeLayers(io.ComfyNode):
    """One layer at a time: ComfyUI's 'VAE Decode' would blend them like the frames of a video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaDecodeLayers",
            display_name="OmniAlpha Decode Layers",
            category=f"{CATEGORY}/layers",
            description="Decodes each layer of a latent and undoes the fitting: layers lie on the picture again.",
            inputs=[
                io.Vae.Input("vae", tooltip="RGBA VAE."),
                io.Latent.Input("latent", tooltip="One frame per layer, as the sampler gives it."),
                Sequence.Input(
                    "sequence", optional=True, tooltip="The one the latent was made from; needed to restore."
                ),
                snap_input(),
                io.Boolean.Input(
                    "restore_frame",
                    default=True,
                    optional=True,
                    tooltip="Bring layers to the size of the sequence's first layer. Off: as the model made them.",
                ),
                tile_input(),
            ],
            outputs=[
                io.Image.Output("layers", display_name="layers", tooltip="RGBA, straight alpha, back to front."),
                mask_output(),
            ],
        )

    @classmethod
    def execute(cls, vae, latent, sequence=None, snap_alpha=False, restore_frame=True, tile_size=0) -> io.NodeOutput:
        samples = latent["samples"]
        frame = _frame(vae, samples, sequence) if sequence is not None and restore_frame else None
        layers = layer_vae.decode(vae, samples, tile_size)
        if frame is not None:
            layers = [frame.undo(layer) for layer in layers]
        if snap_alpha:
            layers = [operations.snap_alpha(layer) for layer in layers]
        return io.NodeOutput(to_image(layers), transparency(layers))


def _frame(vae, samples, sequence: LayerSequence) -> Frame:
    """The way back from the latent's size into the sequence's frame.

    Raises:
        OmniAlphaError: the latent was not made from that sequence.
    """
    layers, (h, w) = layer_vae.layer_latents(samples), samples.shape[-2:]
    size = (h * layer_vae.PIXELS, w * layer_vae.PIXELS)
    if len(layers) % sequence.targets:
        raise OmniAlphaError(
            f"The latent has {len(layers)} layers and the sequence asks for {sequence.targets}. Connect the sequence "
            f"that the latent was made from, or switch restore_frame off."
        )
    settings = stated_settings(vae.patcher)
    if settings is not None:
        fitted = sequence.fitted(settings.pixel_budget, settings.size_multiple)
        if fitted.size != size:
            raise OmniAlphaError(
                f"The latent is {size[1]}x{size[0]} pixels and the sequence works at {fitted.size[1]}x{fitted.size[0]} "
                f"with this checkpoint (width x height). Connect the sequence and the VAE that the latent was made "
                f"with, or switch restore_frame off."
            )
        return fitted.frame
    # A VAE from a loader of its own says nothing about sizes; the latent itself does.
    source = size_of(sequence.layers[0]) if sequence.layers else sequence.size or size
    return Frame(source, size, sequence.fit)
