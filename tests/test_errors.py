"""Messages hold names from files; a terminal that shows them is told nothing else."""

import warnings

import pytest

from omnialpha.errors import OmniAlphaError, OmniAlphaWarning


@pytest.mark.parametrize("kind", [OmniAlphaError, OmniAlphaWarning])
def test_terminals_are_told_nothing(kind):
    name = "a\x1b]0;title\x07\x9b31m\r\x08\u202egnp.exe\u2066"
    assert str(kind(f"'{name}' is odd.\nRename it: 日本語 👩‍🎨.")) == (
        "'a ]0;title  31m   gnp.exe ' is odd.\nRename it: 日本語 👩‍🎨."
    )


def test_the_words_of_a_warning_as_python_shows_it():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("layer '\x1b[2J'", OmniAlphaWarning, stacklevel=1)
    assert str(caught[0].message) == "layer ' [2J'"
