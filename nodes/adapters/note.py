"""Short notes on a node while it runs."""

from __future__ import annotations


def show_note(node_id: str | None, text: str) -> None:
    """Show a text on a node in the browser; nothing where there is no server, no node or no text."""
    if node_id is None or not text:
        return
    from server import PromptServer

    if (server := getattr(PromptServer, "instance", None)) is not None:
        server.send_progress_text(text, node_id)
