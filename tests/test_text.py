"""Text conditioning against the authors' embeddings, and the traps on the way there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from omnialpha import text
from omnialpha.errors import OmniAlphaError

GOLDEN = Path(__file__).parent / "golden" / "text"
IM_START, USER = 151644, (872, 198)  # Qwen's ids for "<|im_start|>" and "user\n"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The fixture's tiny Qwen2.5-VL, loaded from a folder in the key layout of the published checkpoints."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "config.json").write_text((GOLDEN / "encoder" / "config.json").read_text())
    weights = load_file(GOLDEN / "encoder" / "te_tiny.safetensors")
    table = torch.zeros(152064, 48)
    table[weights.pop("embed_rows.ids")] = weights.pop("embed_rows.weight")
    weights["model.embed_tokens.weight"] = table
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN / "embeddings.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
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
