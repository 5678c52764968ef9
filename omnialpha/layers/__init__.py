"""RGBA layers in straight alpha: compositing, resizing, ordering, refining, sequences. Tensors only, no files."""
