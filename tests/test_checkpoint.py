"""Finding checkpoints, and reading weights that may be anything."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from omnialpha.checkpoint import weights as checkpoint
from omnialpha.checkpoint.folder import Checkpoint
from omnialpha.errors import OmniAlphaError
from omnialpha.json_files import read_json


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path, {"made": "here"})
    return path


def test_header_equals_the_library(weights):
    tensors, metadata = checkpoint.read_header(weights)
    assert tensors["a"] == checkpoint.TensorInfo("F32", (2, 3)) and tensors["a"].elements == 6
    assert tensors["b"].dtype == "BF16"
    assert metadata == {"made": "here"}
    assert torch.equal(checkpoint.load_tensors(weights)["a"], torch.arange(6.0).reshape(2, 3))


def test_shards_through_index_and_folder(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "m-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "m-2.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    for path in (index, tmp_path):
        assert set(checkpoint.load_tensors(path)) == {"a", "b"} == set(checkpoint.read_headers(path))

    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(OmniAlphaError, match=r"lists m-2\.safetensors, which is missing"):
        checkpoint.load_tensors(tmp_path)


def test_an_index_stays_in_its_folder(tmp_path):
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(OmniAlphaError, match="beside their index"):
        checkpoint.load_tensors(index)


def damaged(data: bytes) -> dict[str, bytes]:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    return {
        "empty": b"",
        "short": data[:5],
        "half a header": data[:40],
        "cut off": data[:-3],
        "longer": data + b"xx",
        "torn header": data[:8] + b"{" + b"\xff" * 60 + data[69:],
        "wrong span": struct.pack("<Q", len(header)) + header + b"\0" * 4,
        "pickle": pickle.dumps({"a": 1}),
        "zip pickle": b"PK\x03\x04" + b"\0" * 60,
        "gguf": b"GGUF" + b"\3\0\0\0" * 20,
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "web page": b"<!DOCTYPE html><html></html>",
    }


WORDS = {
    "empty": "is empty",
    "short": "cut off",
    "half a header": "cut off",
    "cut off": "cut off",
    "longer": "2 bytes too many",
    "torn header": "damaged safetensors header",
    "wrong span": "tensor a does not fill its place",
    "pickle": "is a pickle",
    "zip pickle": "is a pickle",
    "gguf": "GGUF",
    "lfs pointer": "Git LFS pointer",
    "web page": "web page",
}


@pytest.mark.parametrize("kind", WORDS)
def test_damage_is_named(weights, tmp_path, kind):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damaged(weights.read_bytes())[kind])
    for read in (checkpoint.read_header, checkpoint.load_tensors):
        with pytest.raises(OmniAlphaError, match=WORDS[kind]):
            read(path)


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(OmniAlphaError, match="pickle"):
        checkpoint.load_tensors(path)
    with pytest.raises(OmniAlphaError, match="pickle"):
        checkpoint.load_tensors(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_finding(tmp_path, weights):
    assert checkpoint.find_checkpoint(tmp_path) == tmp_path
    with pytest.raises(OmniAlphaError, match="is a file"):
        checkpoint.find_checkpoint(weights)
    with pytest.raises(OmniAlphaError, match="No checkpoint at"):
        checkpoint.find_checkpoint(tmp_path / "nowhere")


def test_missing_parts_are_all_named(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    (tmp_path / "transformer" / "model.bin").write_bytes(b"\x80\x02")
    lacking = "; ".join(Checkpoint(tmp_path).missing())
    for words in ("transformer/ weights", "pickle", "vae/ weights", "text_encoder/config.json", "tokenizer.json"):
        assert words in lacking
    with pytest.raises(OmniAlphaError, match="not a complete checkpoint"):
        Checkpoint(tmp_path).check()


def test_the_vae_may_lie_elsewhere(tmp_path):
    with pytest.raises(OmniAlphaError) as error:
        Checkpoint(tmp_path, vae=tmp_path / "elsewhere").check()
    assert "vae/" not in str(error.value).split("Expected")[0]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[]", "holds list, expected a JSON object"),
    ],
)
def test_damaged_json_is_said_in_words(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(OmniAlphaError, match=words) as error:
        read_json(tmp_path / "a.json", advice="Do this.")
    assert "a.json" in str(error.value) and str(error.value).endswith("Do this.")


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json", list) == [1]
    with pytest.raises(OmniAlphaError, match="Cannot read"):
        read_json(tmp_path / "b.json")
