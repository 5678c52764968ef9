"""What a user can cause: an error, a warning, and an end before the end."""


class OmniAlphaError(ValueError):
    """Input that cannot be used, explained: what was found, what was expected, what to do.

    The command line prints the message alone and ComfyUI shows it on the node, so it has to make sense without a
    traceback. Anything else that escapes the library is a bug.
    """


class OmniAlphaWarning(UserWarning):
    """Something that runs but may not do what is hoped for, such as a task the checkpoint was not trained on."""


class Cancelled(Exception):
    """A callback asked a run to stop."""
