"""Short notes on a node while it runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ...omnialpha.errors import OmniAlphaWarning


def show_note(node_id: str | None, text: str) -> None:
    """Show a text on a node in the browser; nothing where there is no server, no node or no text."""
    if node_id is None or not text:
        return
    from server import PromptServer

    if (server := getattr(PromptServer, "instance", None)) is not None:
        server.send_progress_text(text, node_id)


@contextmanager
def doubts_shown(node_id: str | None, title: str) -> Iterator[None]:
    """What the library warns of meanwhile is shown on the node, and logged under its title."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OmniAlphaWarning)
        yield
    doubts = [str(one.message) for one in caught if issubclass(one.category, OmniAlphaWarning)]
    for doubt in doubts:
        logging.warning("%s: %s", title, doubt)
    show_note(node_id, "\n".join(doubts))
