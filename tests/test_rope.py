"""MSRoPE-BiL against the authors' forwards and against diffusers' own table."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from reference import TOLERANCE
from safetensors import safe_open
from safetensors.torch import load_file

from omnialpha.model.rope import LayerRope, install_rope, layer_positions, rope_angles
from omnialpha.model.tokens import pack, unpack

DIT = Path(__file__).parent / "golden" / "dit"
AXES = (8, 12, 12)
COUNTS = list(itertools.product([1, 2, 3, 4], [0, 1, 2, 3]))
CASES = ["m1n0", "m1n1", "m1n2", "m2n1"]


@pytest.fixture(scope="module")
def forwards():
    with safe_open(DIT / "forward.safetensors", "pt") as file:
        return load_file(DIT / "forward.safetensors"), {k: json.loads(v) for k, v in file.metadata().items()}


def load_transformer():
    from diffusers import QwenImageTransformer2DModel

    return install_rope(QwenImageTransformer2DModel.from_pretrained(DIT / "transformer").eval())


@pytest.fixture(scope="module")
def transformer():
    return load_transformer()


def forward(transformer, case, forwards):
    """The velocity of one golden case, [1, 16, m, h, w]."""
    tensors, about = forwards
    (h, w), m = about[case]["hw"], about[case]["m"]
    inputs = [tensors[f"{case}.ref{i}"][:, :, 0] for i in range(len(about[case]["inputs"]))]
    tokens, shapes = pack(tensors[f"{case}.x"], inputs)
    with torch.no_grad():
        out = transformer(
            hidden_states=tokens,
            encoder_hidden_states=tensors[f"{case}.context"],
            timestep=tensors[f"{case}.t"],
            img_shapes=shapes,
            return_dict=False,
        )[0]
    return unpack(out, m, h, w)


@pytest.mark.parametrize("case", CASES)
def test_forwards_equal_the_authors(transformer, forwards, case):
    torch.testing.assert_close(forward(transformer, case, forwards), forwards[0][f"{case}.out"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_angles_equal_the_authors(forwards, case):
    tensors, about = forwards
    patches = [(h // 2, w // 2) for h, w in [about[case]["hw"], *about[case]["inputs"]]]
    targets = patches[:1] * about[case]["m"]
    angles = rope_angles(layer_positions(targets, patches[1:], about[case]["txt_len"]), AXES)
    difference = angles - tensors[f"{case}.rope_angle"]
    assert (torch.remainder(difference + math.pi, 2 * math.pi) - math.pi).abs().max() < 2e-6


def test_lora_equals_the_authors(forwards):
    transformer = load_transformer()
    weights = load_file(DIT / "lora_rank4.safetensors")
    transformer.load_lora_adapter(weights, prefix="transformer")
    expected = load_file(DIT / "forward_lora.safetensors")["m2n1.out"]
    found = forward(transformer, "m2n1", forwards)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert (found - forwards[0]["m2n1.out"]).abs().max() > 0.05, "the adapter did nothing"


def test_a_wrong_layer_axis_shows(transformer, forwards):
    """The fixtures would be worth little if they passed with positions that are wrong."""
    flat = install_rope(copy.deepcopy(transformer), axis="2d")
    assert (forward(flat, "m2n1", forwards) - forwards[0]["m2n1.out"]).abs().max() > 0.1
    assert flat.pos_embed.axis == "2d" and transformer.pos_embed.axis == "bil"


def stock_rope():
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    return QwenEmbedRope(theta=10000, axes_dim=list(AXES), scale_rope=True)


def extents(m, n, size=(16, 22)):
    """m targets of one size and n inputs of sizes that differ, some odd, in patches."""
    return [size] * m, [(size[0] + i, size[1] - 3 * i) for i in range(n)]


@pytest.mark.parametrize("m, n", COUNTS)
def test_table_is_diffusers_own_where_the_picture_is_large(m, n):
    targets, inputs = extents(m, n)
    shapes = [[(1, *extent) for extent in targets + inputs]]
    expected = stock_rope()(shapes, max_txt_seq_len=9, device=torch.device("cpu"))
    found = LayerRope(AXES)(shapes, max_txt_seq_len=9, device=torch.device("cpu"))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype == torch.complex64
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("m, n", COUNTS)
def test_text_stays_behind_the_layers_on_small_pictures(m, n):
    """4 x 4 patches: diffusers starts the text at 2, in the middle of the layer axis; the paper wants z >= n."""
    targets, inputs = [(4, 4)] * m, [(4, 4)] * n
    positions = layer_positions(targets, inputs, 5)
    start = max(2, m + n)
    assert torch.equal(positions[:5], (start + torch.arange(5.0))[:, None].expand(-1, 3))
    layers = positions[5:].reshape(m + n, 16, 3)
    assert torch.equal(layers[:, :, 0], torch.arange(m + n, dtype=torch.float32)[:, None].expand(-1, 16))
    assert positions[:5, 0].min() >= layers[:, :, 0].max() + 1
    # Shifted back by m these are the paper's: targets -m ... -1, inputs 0 ... n-1, text from n on.
    z = layers[:, 0, 0] - m
    assert z.tolist() == [*range(-m, 0), *range(n)] and positions[0, 0] - m >= n

    shapes = [[(1, 4, 4)] * (m + n)]
    stock_layers, stock_text = stock_rope()(shapes, max_txt_seq_len=5 + start, device=torch.device("cpu"))
    ours_layers, ours_text = LayerRope(AXES)(shapes, max_txt_seq_len=5)
    assert torch.equal(ours_layers, stock_layers)
    assert torch.equal(ours_text, stock_text[start - 2 : start + 3])


@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (3, 5), (4, 7)])
def test_rows_and_columns_are_centred(height, width):
    grid = layer_positions([(height, width)], [], 0).reshape(height, width, 3)
    assert grid[:, 0, 1].tolist() == list(range(-(height - height // 2), height // 2))
    assert grid[0, :, 2].tolist() == list(range(-(width - width // 2), width // 2))


def test_every_layer_takes_part_in_the_text_start():
    assert layer_positions([(4, 4)], [(10, 4), (4, 30)], 1)[0].tolist() == [15, 15, 15]


def test_2d_axis_flattens_the_layers_only():
    flat, full = (layer_positions([(3, 3)] * 2, [(3, 3)], 4, axis) for axis in ("2d", "bil"))
    assert torch.equal(flat[:, 1:], full[:, 1:]) and torch.equal(flat[:4], full[:4])
    assert flat[4:, 0].unique().tolist() == [0]


def test_any_extent_and_any_number_of_layers():
    """diffusers' table ends at 4096."""
    image, text = LayerRope(AXES)([[(1, 1, 9000)] + [(1, 1, 1)] * 40], max_txt_seq_len=5000)
    assert image.shape == (9040, 16) and text.shape == (5000, 16)
    torch.testing.assert_close(torch.angle(image[-1, :1]), torch.tensor([40.0 - 12 * math.pi]))


def test_call_forms_of_older_diffusers():
    rope, shapes = LayerRope(AXES), [[(1, 4, 6), (1, 6, 4)]] * 2
    new = rope(shapes, max_txt_seq_len=7, device=torch.device("cpu"))
    for args, options in [
        ((shapes, [7, 5]), {"device": torch.device("cpu")}),
        ((shapes, 7), {}),
        ((shapes, torch.tensor(7)), {}),
        ((shapes,), {"txt_seq_lens": [7], "device": "cpu"}),
        ((shapes,), {"txt_seq_lens": [3], "max_txt_seq_len": torch.tensor(7)}),
    ]:
        assert all(torch.equal(a, b) for a, b in zip(new, rope(*args, **options), strict=True))
    single = rope([(1, 4, 6)], max_txt_seq_len=7)
    assert torch.equal(single[0], rope([[(1, 4, 6)]], max_txt_seq_len=7)[0])


def test_tables_made_in_inference_mode_still_train():
    rope, shapes = LayerRope(AXES), [[(1, 5, 7)]]
    with torch.inference_mode():
        rope(shapes, max_txt_seq_len=3)
    query = torch.ones(35, 16, dtype=torch.complex64, requires_grad=True)
    (query * rope(shapes, max_txt_seq_len=3)[0]).real.sum().backward()
    assert query.grad is not None


def test_install_keeps_the_state_dict(transformer):
    assert not [key for key in transformer.state_dict() if "pos_embed" in key]
    assert "axis='bil'" in repr(transformer.pos_embed)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: layer_positions([(0, 4)], [], 1), "at least one patch"),
        (lambda: layer_positions([(2, 2)], [], 1, axis="3d"), "'3d'"),
        (lambda: LayerRope(AXES, axis="x"), "'x'"),
        (lambda: LayerRope(AXES)([[(1, 2, 2)]]), "text length"),
        (lambda: LayerRope(AXES)([[(2, 2, 2)]], 3), "single frame"),
        (lambda: LayerRope(AXES)([[(1, 2, 2)], [(1, 2, 4)]], 3), "same layers"),
        (lambda: rope_angles(torch.zeros(2, 3), (8, 12)), "3 even numbers"),
        (lambda: rope_angles(torch.zeros(2, 3), (8, 11, 13)), "3 even numbers"),
    ],
)
def test_errors_name_what_was_found(call, words):
    with pytest.raises(ValueError, match=words):
        call()
