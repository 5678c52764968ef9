"""The pack in a running ComfyUI: it loads quietly, and its nodes are what shared workflows rely on."""

import json
import os
import re
import urllib.request
from pathlib import Path

import comfy_server
import make_locales

SNAPSHOT = Path(__file__).with_name("object_info.json")
OURS = "OmniAlpha"
# What every ComfyUI says of a node; newer ones say more.
SAID = (
    "input", "input_order", "output", "output_is_list", "output_name", "output_matchtypes", "name", "display_name",
    "category", "output_node", "deprecated", "experimental", "api_node",
)  # fmt: skip


def test_loads_without_a_warning(comfy):
    startup = comfy.output().split("To see the GUI go to")[0].splitlines()
    ours = [line for line in startup if "omnialpha" in line.lower() and "omnialpha-comfy" not in line]
    timing = [line for line in startup if line.rstrip().endswith(f"custom_nodes/{comfy_server.PACK}")]
    assert len(timing) == 1 and "IMPORT FAILED" not in timing[0], timing
    assert not ours or ours == timing, "it should say nothing else"
    assert not any("Traceback" in line for line in startup)


def test_object_info_matches_the_snapshot(comfy):
    """Node ids and input names are a contract with every shared workflow.

    After a change that only appends optional inputs: UPDATE_SNAPSHOTS=1 pytest tests/comfy/test_pack.py
    """
    found = {name: {key: _contract(node[key]) for key in SAID} for name, node in _schemas(comfy).items()}
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(SNAPSHOT.read_text())


def test_every_node_and_input_explains_itself(comfy):
    for name, node in _schemas(comfy).items():
        assert node["display_name"].startswith(OURS) and node["description"] and node["category"].startswith(OURS)
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        silent = [key for key, (_, options) in inputs.items() if not options.get("tooltip")]
        assert not silent, (name, silent)


def test_english_words_are_current(comfy):
    """locales/en holds what the nodes say, so that other languages know what to translate."""
    for name, words in make_locales.english(comfy.get("/object_info")).items():
        committed = make_locales.LOCALES / "en" / name
        assert committed.read_text(encoding="utf-8") == make_locales.text_of(words), "make words"


def test_help_pages_are_served_where_the_frontend_looks(comfy):
    """It asks for /extensions/PACK/docs/NODE/LANGUAGE.md, and resolves pictures against docs."""
    docs = f"{comfy.url}/extensions/{comfy_server.PACK}/docs"
    for node in _schemas(comfy):
        for language in ("en", "zh"):
            with urllib.request.urlopen(f"{docs}/{node}/{language}.md") as answer:
                shown = re.findall(r"!\[\]\((.*?)\)", answer.read().decode())
            assert shown == [f"{node}/node.png"]
        with urllib.request.urlopen(f"{docs}/{shown[0]}") as answer:
            assert answer.headers["Content-Type"] == "image/png"


def test_languages_reach_the_frontend(comfy):
    served = comfy.get("/i18n")
    assert {"en", "zh", "ja", "ko"} <= set(served)
    assert served["zh"]["nodeDefs"]["OmniAlphaTask"]["display_name"] != served["en"]["nodeDefs"]["OmniAlphaTask"]


def _schemas(comfy) -> dict:
    """Our part of /object_info, less what belongs to the machine or to ComfyUI."""
    nodes = {name: node for name, node in sorted(comfy.get("/object_info").items()) if name.startswith(OURS)}
    for node in nodes.values():
        node.pop("python_module")
    nodes["OmniAlphaTask"]["input"]["required"]["sampler"][1]["options"] = "ComfyUI's"
    for node, files in (("OmniAlphaLoadVAE", "vae_name"), ("OmniAlphaLoadLayers", "file")):
        nodes[node]["input"]["required"][files][1]["options"] = "the artist's files"
    growing = nodes["OmniAlphaSequence"]["input"]["optional"]["layers"][1]["template"]["input"]
    growing["required"] |= growing.pop("optional", {})  # newer ones say that its sockets need not be connected
    return nodes


def _contract(value):
    """A schema without its wording, which may improve."""
    if isinstance(value, dict):
        words = ("tooltip", "description", "output_tooltips", "tasks")
        return {key: _contract(inner) for key, inner in value.items() if key not in words}
    return [_contract(inner) for inner in value] if isinstance(value, list) else value
