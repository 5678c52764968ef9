"""Short notes on a node while it runs."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ...omnialpha.errors import OmniAlphaWarning, readable

# Frontends show notes as HTML, some with the scripts in it, and make a link of [[words|address]]. Look-alikes rather
# than entities: other frontends, and our own web/, show notes as plain text.
_LOOKALIKES = str.maketrans({"<": "‹", ">": "›", "|": "¦"})


def plain(text: str) -> str:
    """A text in which nothing is markup. Names in files, in it, come from strangers."""
    return re.sub(r"&(?=#|\w)", "＆", readable(text).translate(_LOOKALIKES))


def listable(names: Iterable[str]) -> list[str]:
    """Those names of files that may stand in a node's list: frontends show lists as HTML, too, and a tag needs a <.

    The others are not renamed, as what is chosen has to be what the file is called.
    """
    return [name for name in names if "<" not in name]


def show_note(node_id: str | None, text: str) -> None:
    """Show a text on a node in the browser; nothing where there is no server, no node or no text."""
    if node_id is None or not text:
        return
    from server import PromptServer

    if (server := getattr(PromptServer, "instance", None)) is not None:
        server.send_progress_text(plain(text), node_id)


@contextmanager
def doubts_shown(node_id: str | None, title: str) -> Iterator[None]:
    """What the library warns of meanwhile is shown on the node, and logged under its title."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OmniAlphaWarning)
        yield
    doubts = [str(one.message) for one in caught if issubclass(one.category, OmniAlphaWarning)]
    for doubt in doubts:
        logging.warning("%s: %s", title, plain(doubt))  # the page shows the log
    show_note(node_id, "\n".join(doubts))
