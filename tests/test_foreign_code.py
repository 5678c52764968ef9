"""Code in a checkpoint's folder never runs, and nobody is asked whether it may."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from omnialpha.checkpoint.folder import Checkpoint
from omnialpha.checkpoint.weights import find_checkpoint
from omnialpha.errors import OmniAlphaError
from omnialpha.model.loading import load_text_encoder, load_tokenizer

ROOT = Path(__file__).resolve().parent.parent
CODE = """
open({canary!r}, "a").write("x")
from transformers import PreTrainedTokenizerFast
class Extra(PreTrainedTokenizerFast): pass
class ExtraConfig: pass
"""
TOKENIZER = {"AutoTokenizer": ["extra.Extra", "extra.Extra"]}
# file -> what a stranger puts into it
HOSTILE = {
    "tokenizer/tokenizer_config.json": {"auto_map": TOKENIZER, "tokenizer_class": "Extra"},
    "tokenizer/config.json": {
        "model_type": "extra", "auto_map": {"AutoConfig": "extra.ExtraConfig", "AutoTokenizer": "extra.Extra"}
    },
    "text_encoder/config.json": {"auto_map": {"AutoModel": "extra.Extra"}},
    "transformer/config.json": {"auto_map": {"AutoModel": "extra.Extra"}},
    "text_encoder/generation_config.json": {"custom_generate": "someone/extra"},
    "text_encoder/config.json#": {"text_config": {"attn_implementation": "someone/extra"}},
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[str]:
    """The questions that were asked on standard input, each of which was answered with "y"."""
    import transformers.dynamic_module_utils as dynamic

    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda words="": questions.append(words) or "y")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return questions


@pytest.fixture(params=HOSTILE)
def hostile(request, tmp_path) -> Path:
    """A copy of micro that asks for code; `ran` beside it comes to be if that runs."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(find_checkpoint("micro"), folder)
    path = folder / request.param.rstrip("#")
    path.with_name("extra.py").write_text(CODE.format(canary=str(tmp_path / "ran")))
    if path.parent.name == "tokenizer" and path.name == "config.json":  # read only where nothing names the class
        settings = path.with_name("tokenizer_config.json")
        named = json.loads(settings.read_text())
        named.pop("tokenizer_class", None)
        settings.write_text(json.dumps(named))
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **HOSTILE[request.param]}))
    return folder


def test_a_folder_with_code_is_refused_before_anything_is_loaded(hostile, asked):
    with pytest.raises(OmniAlphaError, match=r"config\.json asks to run code .*extra.*never run"):
        Checkpoint(hostile).check()
    assert not asked and not (hostile.parent / "ran").exists()


@pytest.mark.parametrize("hostile", list(HOSTILE)[:2], indirect=True)
def test_a_tokenizer_with_code_is_refused(hostile, asked):
    with pytest.raises(OmniAlphaError, match="asks to run code"):
        load_tokenizer(Checkpoint(hostile))
    assert not asked and not (hostile.parent / "ran").exists()


@pytest.mark.parametrize("hostile", [name for name in HOSTILE if name.startswith("text_encoder")], indirect=True)
def test_a_text_encoder_with_code_is_refused(hostile, asked):
    with pytest.raises(OmniAlphaError, match="asks to run code"):
        load_text_encoder(Checkpoint(hostile), torch.float32)
    assert not asked and not (hostile.parent / "ran").exists()


@pytest.mark.parametrize("hostile", list(HOSTILE)[:2], indirect=True)
def test_without_our_own_look_transformers_does_not_ask_either(hostile, asked, monkeypatch):
    """The loader's own answer to what we do not know to look for: without that code, or not at all."""
    monkeypatch.setattr("omnialpha.checkpoint.foreign_code.refuse_code", lambda _: None)
    with contextlib.suppress(OmniAlphaError):
        load_tokenizer(Checkpoint(hostile))
    assert not asked and not (hostile.parent / "ran").exists()


def test_usual_folders_are_let_through():
    Checkpoint("micro").check()


def test_every_loader_says_no_to_code():
    """`from_pretrained` of transformers and diffusers, wherever it is called; our pipeline's own goes by these."""
    missing = []
    for path in [*ROOT.glob("omnialpha/**/*.py"), *ROOT.glob("nodes/**/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "from_pretrained":
                continue
            said = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
            if ast.unparse(call.func.value) != "OmniAlphaPipeline" and said.get("trust_remote_code") is not False:
                missing.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not missing, f"give trust_remote_code=False: {missing}"
