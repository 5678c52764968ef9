"""The same words are the same tokens in the library and in ComfyUI, whatever somebody types."""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path

import comfy_server
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnialpha import text as library
from omnialpha.checkpoint import find_checkpoint
from omnialpha.errors import OmniAlphaError
from omnialpha.loading import load_tokenizer
from omnialpha.request import plan
from omnialpha.settings import read_settings

HERE = Path(__file__).resolve().parent

PIECES = [
    r"\(", r"\)", r"\\(", r"a \(y\) b", "(", ")", "((very:1.4) red)", "(word:1.2)", "(word:0)", "[b]", "[a:b:0.5]",
    "\\", "\\n", "embedding:x", " embedding:bad-hands", "\nembedding:x, ", "EMBEDDING:x", "embedding:", "embedding: ",
    "<lora:x:1>", "{text}", "{}", "{0}", "{red|blue}", "__wild__", "%s", "$name", "BREAK", " AND ", "Picture 2: ", "&amp;",
    "<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<|object_ref_start|>", "<tool_call>", "<|fim_pad|>", "< |im_end|>",
    "<|vision_start|>", "<|image_pad|>", "<|endoftext|>", "<|start_header_id|>", "<s>", "</s>", "[PAD]",
    "\0\1", "\0\2", "\0", "\t", "\r\n", "  ", "\u00a0", "\u2028", "\u200b", "\ufeff", "\u202e", "\ufffd", "\ud83d", "\udc80",
    "e\u0301", "\u00e9", "\u1100\u1161", "ﬁ", "Ａ", "（", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "👍🏽", "☃️", "שלום עולם", "مرحبا بالعالم", "עִבְרִית", "树", "ก็", "½",
    "a cat", " ", ",", "it's", "3.14", "1girl", "don't 're 'll",
]  # fmt: skip
WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
LONG = "a \\(very\\) long embedding:story of (cats:1.3), " * 150


@pytest.fixture(scope="module")
def ask(comfyui, tmp_path_factory):
    """Asks a process of `inside/tokens.py`."""
    base = tmp_path_factory.mktemp("tokens")
    for folder in ("models/embeddings", "models/vae", "output", "temp", "input", "custom_nodes"):
        (base / folder).mkdir(parents=True)
    command = [comfy_server.find_python(comfyui), HERE / "inside/tokens.py", comfyui, base, HERE.parent.parent]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (base / "log").open("w") as log, subprocess.Popen(list(map(str, command)), stderr=log, **pipes) as process:

        def ask(question: dict):
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith("CHECK "):
                    return json.loads(line.removeprefix("CHECK "))
            raise RuntimeError((base / "log").read_text()[-3000:])

        yield ask
        process.stdin.close()


def tokens(tokenizer, prompts: list[str], pictures: int = 0) -> list[list]:
    """What the library's text encoder gets to see."""
    seen = []

    def encode_ids(text_encoder, ids, pictures):
        seen.append(["picture" if token == image else token for token in ids])
        return torch.zeros(1, len(ids), 1)

    image = tokenizer.convert_tokens_to_ids(library.IMAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "encode_ids", encode_ids)
        for prompt in prompts:
            library.encode_prompt(None, tokenizer, prompt, [torch.ones(4, 32, 32)] * pictures)
    return seen


def told(tokenizer, *request, pictures: int = 0, **options):
    """What the library makes of a request: tokens of instruction and negative, or the error it says."""
    try:
        with warnings.catch_warnings(action="ignore"):
            planned = plan(read_settings(find_checkpoint()), *request, guidance=2.0, **options)
        return tokens(tokenizer, [planned.instruction, planned.negative], pictures)
    except OmniAlphaError as error:
        return {"error": str(error)}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(find_checkpoint())


EVERY = settings(max_examples=150)


@EVERY
@given(WORDS, WORDS, st.integers(0, 2))
@example(LONG, LONG, 1)
@example(LONG * 3, "", 0)
def test_instruct_reads_words_as_the_library_does(ask, tokenizer, words, negative, pictures):
    words = f"Draw {words}"
    found = ask({"instruct": {"instruction": words, "negative": negative}, "pictures": pictures})
    layers = [torch.ones(4, 32, 32)] * pictures
    assert found == told(tokenizer, None, words, layers, negative=negative, pictures=pictures)


@EVERY
@given(WORDS, WORDS, WORDS)
@example(r"a \(y\) b", "", "")
@example("embedding:foo a frog", "", "")
@example(LONG, "{text} {text}", "")
def test_the_task_node_reads_words_as_the_library_does(ask, tokenizer, text, instruction, negative):
    words = {"text": text, "instruction": instruction, "negative": negative}
    assert ask({"task": {"task": "text_to_rgba", **words}}) == told(tokenizer, "text_to_rgba", **words)


@EVERY
@given(WORDS)
@example(LONG)
def test_clips_of_comfyuis_loaders_read_words_as_they_are(ask, comfyui, core_tokenizer, words):
    """ComfyUI's own tokenizer of Qwen2.5-VL, against its vocabulary as the library reads one."""
    try:
        wanted = tokens(core_tokenizer, [words])
    except OmniAlphaError as error:
        wanted = {"error": str(error)}
    assert ask({"core": words}) == wanted


@pytest.fixture(scope="module")
def core_tokenizer(comfyui):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(comfyui / "comfy/text_encoders/qwen25_tokenizer", local_files_only=True)
