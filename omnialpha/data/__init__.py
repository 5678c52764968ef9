"""Training data: RGBA objects, backgrounds, and the triplets composed from them (paper section 3.4, AlphaLayers)."""
