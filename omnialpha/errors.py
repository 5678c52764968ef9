"""The one exception a user can cause."""


class OmniAlphaError(ValueError):
    """Input that cannot be used, explained: what was found, what was expected, what to do.

    The command line prints the message alone and ComfyUI shows it on the node, so it has to make sense without a
    traceback. Anything else that escapes the library is a bug.
    """
