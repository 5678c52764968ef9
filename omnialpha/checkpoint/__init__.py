"""A checkpoint's folder: what it states, its schedule, its tensors and their names, its LoRA. Loads no model."""
