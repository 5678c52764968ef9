"""Training: the RGBA VAE, then the transformer with its text encoder."""
