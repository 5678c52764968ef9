"""Text conditioning against the authors' embeddings, and the traps on the way there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from PIL import Image
from safetensors import safe_open

from omnialpha.errors import OmniAlphaError
from omnialpha.model import text

GOLDEN = Path(__file__).parent / "golden" / "text"
IM_START, USER = 151644, (872, 198)  # Qwen's ids for "<|im_start|>" and "user\n"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return reference.text_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN / "embeddings.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, {case: json.loads(words) for case, words in file.metadata().items()}


@pytest.mark.parametrize("case", ["t2i", "resized"])
def test_embeddings_equal_the_authors(encoder, golden, case):
    tensors, about = golden
    ids = tensors[f"{case}.ids"].tolist()
    pixels = [tensors[f"{case}.img{i}"][0] for i in range(about[case]["n"])]
    layers = [torch.cat([p.permute(2, 0, 1) / 255, torch.ones(1, *p.shape[:2])]) for p in pixels]
    pictures = [text.condition_image(layer) for layer in layers]
    start = text.user_start(ids, IM_START, USER)
    assert start == tensors[f"{case}.prefix_len"].item() == 64

    found = text.encode_ids(encoder, ids, pictures)[:, start:]
    torch.testing.assert_close(found, tensors[f"{case}.embeds"], atol=2e-5, rtol=0)
    if pictures:  # the window order of the vision tower matters only above one window of 8 x 8 patches
        rows, columns = tensors[f"{case}.grid"][0, 1:].tolist()
        assert min(rows, columns) > 8
        assert pictures[0].size == (columns * 14, rows * 14)


def test_the_template_and_the_picture_words_are_diffusers(monkeypatch):
    """Our prompt equals the one diffusers hands to its processor, word for word."""
    from diffusers import QwenImageEditPlusPipeline

    class Stop(Exception):
        pass

    seen = {}

    def processor(text, **_):
        seen["text"] = text[0]
        raise Stop

    pipe = QwenImageEditPlusPipeline(*[None] * 6)
    object.__setattr__(pipe, "processor", processor)
    with pytest.raises(Stop):
        pipe._get_qwen_prompt_embeds("a {red} cup", [object(), object()], device="cpu", dtype=torch.float32)
    assert text.full_prompt("a {red} cup", 2) == seen["text"]


def test_prompt_without_pictures_uses_the_edit_template_too():
    head, tail = text.edit_template().split("{}")
    assert text.full_prompt("", 0) == head + tail


@pytest.mark.parametrize("token", text.RESERVED)
def test_tokens_that_are_no_words_are_refused(token):
    with pytest.raises(OmniAlphaError, match=rf"{re.escape(token)}, which {text.RESERVED[token]}"):
        text.full_prompt(f"a {token} cup", 1)


@pytest.mark.parametrize("half", ["\ud83d", "\udc80"])
def test_half_a_character_is_refused(half):
    """JSON and command lines can bring one; no tokenizer takes it."""
    with pytest.raises(OmniAlphaError, match=f"one half .U.{ord(half):04X}."):
        text.full_prompt(f"a {half} cup", 1)


@pytest.mark.parametrize(
    "size, expected",  # (height, width) -> PIL's (width, height)
    [((448, 352), (364, 448)), ((64, 128), (140, 56)), ((16, 300), (308, 56)), ((1, 1), (56, 56))],
)
def test_condition_image_sides(size, expected):
    assert text.condition_image(torch.ones(4, *size)).size == expected


def test_condition_image_is_over_white():
    layer = torch.zeros(4, 56, 56)
    layer[0], layer[3, :, 28:] = 1.0, 1.0  # red, left half transparent
    pixels = np.asarray(text.condition_image(layer))
    assert (pixels[:, :28] == 255).all()
    assert (pixels[:, 28:] == (255, 0, 0)).all()


def test_user_start_counts_what_follows():
    assert text.user_start([5, 1, 2, 5, 7, 8, 9], 5, (7, 8)) == 6
    assert text.user_start([5, 1, 2, 5, 7, 9], 5, (7, 8)) == 4
    with pytest.raises(OmniAlphaError, match="not a Qwen2"):
        text.user_start([5, 1, 2], 5)


def test_positions_equal_transformers(encoder):
    """Two pictures with words around them, against transformers' own table where it can compute one."""
    image = encoder.config.image_token_id
    grids = [(2, 3), (5, 4)]
    ids = [1, 2, *[image] * 6, 3, *[image] * 20, 4, 5]
    types = torch.tensor([[int(token == image) for token in ids]])
    grid_thw = torch.tensor([(1, 2 * rows, 2 * columns) for rows, columns in grids])
    try:
        expected, _ = encoder.model.get_rope_index(
            torch.tensor([ids]), mm_token_type_ids=types, image_grid_thw=grid_thw
        )
    except TypeError:  # transformers 4 finds pictures by their start token instead
        pytest.skip("this transformers has another signature")
    assert torch.equal(text.vision_positions(ids, grids, image), expected)


def test_patches_equal_transformers():
    """The processor needs torchvision in new releases; its PIL variant, where there is one, does not."""
    backend = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 140, 3), dtype=np.uint8))
    expected = backend.Qwen2VLImageProcessorPil()(images=[picture], return_tensors="pt")
    assert expected["image_grid_thw"].tolist() == [[1, 6, 10]]
    torch.testing.assert_close(text.vision_patches(picture), expected["pixel_values"], atol=1e-6, rtol=0)


def test_pictures_and_tokens_must_agree(encoder):
    with pytest.raises(OmniAlphaError, match="room for 0 pictures, 1 were given"):
        text.encode_ids(encoder, [1, 2, 3], [Image.new("RGB", (56, 56))])


def test_text_beyond_the_encoder_is_refused(encoder):
    with pytest.raises(OmniAlphaError, match="reads 4096"):
        text.encode_ids(encoder, [1] * 5000, [])
