"""The model: positions, tokens, text, VAE, sampling, and loading them."""
