"""Picking, ordering and merging layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnialpha.errors import OmniAlphaError
from omnialpha.files.names import arrange_names
from omnialpha.layers.arranging import arrange, parse_order
from omnialpha.layers.compositing import flatten

ORDERS = {
    "": [[0], [1], [2]],
    " 1 ": [[1]],
    "2, 0": [[2], [0]],
    "0-2": [[0], [1], [2]],
    "2-0": [[2], [1], [0]],
    "-1": [[2]],
    "0--1": [[0], [1], [2]],
    "0+1,2": [[0, 1], [2]],
    "1-2+0": [[1, 2, 0]],
    "1,1": [[1], [1]],
}


@pytest.mark.parametrize("text", ORDERS)
def test_orders(text):
    assert parse_order(text, 3) == ORDERS[text]


@pytest.mark.parametrize(
    ("text", "words"),
    [("3", "no layer 3; there are 3"), ("-4", "no layer -4"), ("a", "'a' is not"), ("0,,1", "'' is not"),
     ("0+", "'0+' is not"), ("1.5", "is not"), (",".join(["0"] * 300), "300 layers")],
)  # fmt: skip
def test_bad_orders(text, words):
    with pytest.raises(OmniAlphaError, match=words.replace("+", r"\+")):
        parse_order(text, 3)


@given(st.text(alphabet="0123-+, ", max_size=12), st.integers(1, 4))
def test_any_text_is_read_or_refused(text, count):
    try:
        order = parse_order(text, count)
    except OmniAlphaError:
        return
    assert order and all(0 <= number < count for numbers in order for number in numbers)


def test_arranging():
    layers = list(torch.rand(3, 4, 2, 2))
    found = arrange(layers, parse_order("2, 0+1", 3))
    assert torch.equal(found[0], layers[2]) and torch.equal(found[1], flatten(layers[:2]))
    assert arrange_names(["a", "b", "c"], [[2], [0, 1]]) == ["c", "a + b"]
