"""The same words are the same tokens in the library and in ComfyUI, whatever somebody types."""

from __future__ import annotations

import json
import subprocess
import warnings
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import comfy_server
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnialpha.checkpoint.folder import Checkpoint
from omnialpha.errors import OmniAlphaError
from omnialpha.model.loading import load_tokenizer
from omnialpha.model.text import encode_prompt, full_prompt
from omnialpha.request import Request

HERE = Path(__file__).resolve().parent

PIECES = [
    r"\(", r"\)", r"\\(", r"a \(y\) b", "(", ")", "((very:1.4) red)", "(word:1.2)", "(word:0)", "[b]", "[a:b:.5]", "\\",
    "embedding:x", " embedding:bad-hands", "\nembedding:x, ", "EMBEDDING:x", "embedding:", "embedding: ", "<lora:x:1>",
    "{text}", "{}", "{0}", "{red|blue}", "__wild__", "%s", "$name", "BREAK", " AND ", "Picture 2: ", "&amp;",
    "<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<|object_ref_start|>", "<tool_call>", "<|fim_pad|>",
    "<|vision_start|>", "<|image_pad|>", "<|endoftext|>", "<|start_header_id|>", "<s>", "</s>", "[PAD]",
    "\0\1", "\0\2", "\0", "\t", "\r\n", "  ", "\u00a0", "\u2028", "\u200b", "\ufeff", "\u202e", "\ufffd",
    "\ud83d", "\udc80", "e\u0301", "\u00e9", "\u1100\u1161", "\ufb01", "\uff21", "\uff08", "\u00bd",
    "\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd", "\u2603\ufe0f",
    "שלום עולם", "مرحبا بالعالم", "עִבְרִית", "树", "ก็", "a cat", " ", ",", "it's", "3.14", "don't 're 'll",
]  # fmt: skip
WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
LONG = r"a \(very\) long embedding:story of (cats:1.3), " * 70  # 2,000 tokens; five times that is too much for micro


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


class Encoder:
    """In place of micro's text encoder: keeps the tokens that it is shown, a picture's as one."""

    def __init__(self):
        from transformers import Qwen2_5_VLConfig

        self.config = Qwen2_5_VLConfig.from_dict(Checkpoint().config("text_encoder"))
        self.device, self.dtype, self.seen = torch.device("cpu"), torch.float32, []

    def __call__(self, input_ids, **_):
        image = self.config.image_token_id
        runs = [(token, list(run)) for token, run in groupby(input_ids[0].tolist())]
        self.seen.append([t for token, run in runs for t in (["picture"] if token == image else run)])
        return SimpleNamespace(hidden_states=[torch.zeros(1, input_ids.shape[1], 1)])


@pytest.fixture(scope="module")
def told():
    """What the library tells the model: tokens of a request's instruction and negative, or the error it says."""
    checkpoint = Checkpoint()
    tokenizer = load_tokenizer(checkpoint)

    def told(task: str | None, words: str | None, layers: list, **options) -> list | dict:
        encoder = Encoder()
        try:
            with warnings.catch_warnings(action="ignore"):
                request = Request(task=task, instruction=words, images=layers, guidance=2.0, **options)
                plan = request.plan(checkpoint.settings)
            for prompt in (plan.instruction, plan.negative):
                encode_prompt(encoder, tokenizer, prompt, layers)
        except OmniAlphaError as error:
            return {"error": str(error)}
        return encoder.seen

    return told


EVERY = settings(max_examples=150)


@EVERY
@given(WORDS, WORDS, st.integers(0, 2))
@example(LONG, LONG, 1)
@example(LONG * 5, "", 0)
def test_instruct_reads_words_as_the_library_does(ask, told, words, negative, pictures):
    words = f"Draw {words}"
    found = ask({"instruct": {"instruction": words, "negative": negative}, "pictures": pictures})
    assert found == told(None, words, [torch.ones(4, 32, 32)] * pictures, negative=negative)


@EVERY
@given(WORDS, WORDS, WORDS)
@example(r"a \(y\) b", "", "")
@example("embedding:foo a frog", "", "")
@example(LONG, "{text} {text}", "")
def test_the_task_node_reads_words_as_the_library_does(ask, told, text, instruction, negative):
    words = {"text": text, "negative": negative}
    found = ask({"task": {"task": "text_to_rgba", "instruction": instruction, **words}})
    assert found == told("text_to_rgba", instruction, [], **words)


@EVERY
@given(WORDS)
@example(LONG)
def test_clips_of_comfyuis_loaders_read_words_as_they_are(ask, core_tokenizer, words):
    """With ComfyUI's own copy of Qwen2.5-VL's vocabulary, against that vocabulary as the library reads one."""
    try:
        wanted = [core_tokenizer(full_prompt(words, 0), add_special_tokens=False)["input_ids"]]
    except OmniAlphaError as error:
        wanted = {"error": str(error)}
    assert ask({"core": words}) == wanted


@pytest.fixture(scope="module")
def core_tokenizer(comfyui):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(comfyui / "comfy/text_encoders/qwen25_tokenizer", local_files_only=True)
