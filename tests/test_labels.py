"""What layers are called where people look at them."""

import pytest

from omnialpha.labels import label_layers


@pytest.mark.parametrize(
    "names, labels",
    [
        ("", ["background", "layer 1", "layer 2"]),
        ("sky, sun, cat", ["sky", "sun", "cat"]),
        ("sky\nsun, low\r\ncat\n", ["sky", "sun, low", "cat"]),
        ("sky,, cat", ["sky", "layer 1", "cat"]),
        (",sun", ["background", "sun", "layer 2"]),
        ("sky", ["sky", "layer 1", "layer 2"]),
        ("a,b,c,d", ["a", "b", "c"]),
    ],
)
def test_every_layer_has_a_label(names, labels):
    assert label_layers(names, 3) == labels


def test_one_alone_is_no_background():
    assert label_layers("", 1) == ["layer 1"]
    assert label_layers("", 0) == []
