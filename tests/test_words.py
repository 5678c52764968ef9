"""Words on the nodes: every node, input and output has its help page and its translations; nothing is left over.

English comes from the nodes (tests/comfy/test_pack.py compares it with a running ComfyUI), Chinese is complete,
Japanese and Korean have the names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import make_help
import make_locales
import pytest

ROOT = Path(__file__).resolve().parent.parent
# What ComfyUI showed of the nodes last; tests/comfy/test_pack.py keeps it true.
NODES = json.loads((ROOT / "tests/comfy/object_info.json").read_text(encoding="utf-8"))
ENGLISH = json.loads((ROOT / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
LANGUAGES = ("en", "zh", "ja", "ko")
COMPLETE = ("en", "zh")


def locale(language: str, name: str) -> dict:
    return json.loads((ROOT / "locales" / language / name).read_text(encoding="utf-8"))


def test_the_languages_are_these():
    assert {path.name for path in (ROOT / "locales").iterdir()} == set(LANGUAGES)


def test_every_node_is_listed():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "nodes").glob("*.py"))
    assert set(re.findall(r'node_id="(\w+)"', sources)) == set(NODES), "update the snapshot: tests/comfy/test_pack.py"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_node_is_translated(node: str, language: str):
    words = locale(language, "nodeDefs.json").get(node)
    assert words and words["display_name"], f"locales/{language}/nodeDefs.json lacks {node}"
    inputs = {**NODES[node]["input"].get("required", {}), **NODES[node]["input"].get("optional", {})}
    outputs = {str(slot) for slot in range(len(NODES[node]["output"]))}
    found = set(words.get("inputs", {})), set(words.get("outputs", {}))
    assert found == (set(inputs), outputs), f"locales/{language}/nodeDefs.json, {node}: names of inputs or outputs"
    assert all(one["name"] for one in [*words.get("inputs", {}).values(), *words.get("outputs", {}).values()])
    if language in COMPLETE:
        assert words["description"] and all(one["tooltip"] for one in words.get("inputs", {}).values())
        spoken = {slot for slot, one in ENGLISH[node].get("outputs", {}).items() if one.get("tooltip")}
        assert {slot for slot, one in words.get("outputs", {}).items() if one.get("tooltip")} == spoken


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_language_knows_a_node_that_is_gone(language: str):
    assert set(locale(language, "nodeDefs.json")) == set(NODES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_beside_the_nodes_are_translated(language: str):
    english, other = locale("en", "main.json"), locale(language, "main.json")
    sentences = {path for path in paths(english) if path.startswith("omnialpha/text/") or path.endswith("/help")}
    lacking = set(paths(english)) - set(paths(other)) - (set() if language in COMPLETE else sentences)
    assert not lacking, f"locales/{language}/main.json lacks {sorted(lacking)}"
    assert set(paths(other)) <= set(paths(english)), "left over"


def paths(words: dict, before: str = "") -> list[str]:
    """Every leaf, named by the keys that lead to it."""
    found = []
    for key, value in words.items():
        found += paths(value, f"{before}{key}/") if isinstance(value, dict) else [f"{before}{key}"]
    return found


def test_english_words_beside_the_nodes_are_current():
    assert locale("en", "main.json") == make_locales.beside(), "make words"


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_mean_nothing_else_to_the_translator(language: str):
    """vue-i18n reads braces, at signs and bars; outside of {'...'} they would swallow words or stop the page."""
    text = (ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8")
    bare = [leaf for leaf in re.findall(r'": "(.*)"', text) if re.search(r"[{}@|]", re.sub(r"\{'[{}@|]'\}", "", leaf))]
    assert not bare


def test_escaping_is_undone_on_help_pages():
    assert make_locales.escaped("{text} | @") == "{'{'}text{'}'} {'|'} {'@'}"
    assert "{text}" in make_help.made()[make_help.DOCS / "OmniAlphaTask/en.md"]


@pytest.mark.parametrize("node", NODES)
def test_node_has_a_help_page(node: str):
    folder = ROOT / "web/docs" / node
    for language in COMPLETE:
        page = folder / f"{language}.md"
        assert page.is_file(), f"write web/docs/{node}/{language}.md"
        text = page.read_text(encoding="utf-8")
        assert text == make_help.made()[page], "make words"
        assert make_help.picture(node) in text, "show the node"
    shot = folder / "node.png"
    assert shot.is_file() and shot.stat().st_size < 40_000, "make words"


def test_no_help_page_is_left_over():
    assert {path.name for path in (ROOT / "web/docs").iterdir()} == set(NODES)
