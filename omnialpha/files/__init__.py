"""Stacks of layers as files: PNG (8 or 16 bits), Photoshop's PSD and OpenRaster; see `formats`."""
