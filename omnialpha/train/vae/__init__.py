"""Training the RGBA VAE."""
