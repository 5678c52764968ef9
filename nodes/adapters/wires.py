"""The one wire of our own; every other one is a standard ComfyUI type."""

from comfy_api.v0_0_2 import io

CATEGORY = "OmniAlpha"

# Carries an `omnialpha.layers.sequence.LayerSequence`: what the artist asked for, not yet fitted to a checkpoint.
Sequence = io.Custom("OMNIALPHA_SEQUENCE")
