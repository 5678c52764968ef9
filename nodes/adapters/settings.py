"""A checkpoint's settings travel with its MODEL, CLIP and VAE, as attachments that survive clones and LoRAs."""

from __future__ import annotations

from ...omnialpha.checkpoint.settings import PUBLIC, Settings

_KEY = "omnialpha"


def attach(settings: Settings, *patchers) -> None:
    """Attach `settings` to the ModelPatchers of a MODEL, CLIP (`clip.patcher`) or VAE (`vae.patcher`)."""
    for patcher in patchers:
        patcher.set_attachments(_KEY, settings)


def settings_of(*patchers) -> Settings:
    """The settings of the first patcher that carries some; the public checkpoint's where none does.

    Models from ComfyUI's own loaders carry none: those are the public checkpoint's files.
    """
    return stated_settings(*patchers) or Settings(tasks=PUBLIC)


def stated_settings(*patchers) -> Settings | None:
    """The settings of the first patcher that carries some, or None."""
    for patcher in patchers:
        settings = patcher.get_attachment(_KEY) if patcher is not None else None
        if settings is not None:
            return settings
    return None
