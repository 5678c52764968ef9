"""What a user can cause: an error, a warning, and an end before the end."""

import re

# Control characters but line breaks, and those that turn the order of characters round.
_UNREADABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def readable(text: str) -> str:
    """A text without characters that a terminal obeys rather than shows: names in it come from files."""
    return _UNREADABLE.sub(" ", text)


class OmniAlphaError(ValueError):
    """Input that cannot be used, explained: what was found, what was expected, what to do.

    The command line prints the message alone and ComfyUI shows it on the node, so it has to make sense without a
    traceback. Anything else that escapes the library is a bug.
    """

    def __str__(self) -> str:
        return readable(super().__str__())


class OmniAlphaWarning(UserWarning):
    """Something that runs but may not do what is hoped for, such as a task the checkpoint was not trained on."""

    def __str__(self) -> str:
        return readable(super().__str__())


class Cancelled(Exception):
    """A callback asked a run to stop."""
