"""Make what tools can make of the help pages in web/docs: pictures of the nodes, and the tables of their sockets.

    make words

English pages are written by hand, but for the table between two comments; Chinese ones are made as a whole. Tables come
from locales/, pictures from the real frontend (left as they are where there is none: see frontend.py).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import comfy_server
import frontend
from PIL import Image

DOCS = comfy_server.ROOT / "web/docs"
LOCALES = comfy_server.ROOT / "locales"
BEGIN, END = "<!-- made by tools/make_help.py -->", "<!-- end -->"
HEADS = {"en": ("Inputs", "Outputs", "name", "meaning"), "zh": ("输入", "输出", "名称", "含义")}


def words(language: str) -> dict:
    """Node id -> its words, as people read them."""
    text = (LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8")
    return json.loads(re.sub(r"\{'([{}@|])'\}", r"\1", text))


def table(node: dict, language: str) -> str:
    """The sockets of a node as Markdown."""
    inputs, outputs, name, meaning = HEADS[language]
    parts = []
    for title, sockets in ((inputs, node["inputs"]), (outputs, node.get("outputs", {}))):
        if sockets:
            rows = [f"| **{_cell(one['name'])}** | {_cell(one.get('tooltip', ''))} |" for one in sockets.values()]
            parts.append("\n".join([f"### {title}", "", f"| {name} | {meaning} |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def picture(node_id: str) -> str:
    """The picture of a page. The frontend resolves links against web/docs, not against the page."""
    return f"![]({node_id}/node.png)"


def english(page: str, node: dict) -> str:
    """A page written by hand with its table made anew.

    Raises:
        ValueError: it has no place for the table.
    """
    before, mark, rest = page.partition(BEGIN)
    if not mark or END not in rest:
        raise ValueError(f"the page needs a place for the table: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{table(node, 'en')}\n\n{END}{rest.partition(END)[2]}"


def chinese(node_id: str, node: dict) -> str:
    """The whole Chinese page of a node."""
    return f"# {node['display_name']}\n\n{picture(node_id)}\n\n{node['description']}\n\n{table(node, 'zh')}\n"


def made() -> dict[Path, str]:
    """Every page that this file has a part in."""
    english_words, chinese_words = words("en"), words("zh")
    pages = {}
    for node_id, node in english_words.items():
        path = DOCS / node_id / "en.md"
        pages[path] = english(path.read_text(encoding="utf-8"), node)
        pages[DOCS / node_id / "zh.md"] = chinese(node_id, chinese_words[node_id])
    return pages


def make_pictures(nodes: list[str]) -> None:
    """web/docs/*/node.png, with few colours, as a help page is not to weigh on the repository."""
    targets = {node: DOCS / node / "node.png" for node in nodes}
    with comfy_server.ComfyServer() as server:
        frontend.drive(server.url, *({"node": node, "screenshot": path} for node, path in targets.items()))
    for path in targets.values():
        with Image.open(path) as shot:
            shot.convert("RGB").quantize(192).save(path, optimize=True)
        print(path.relative_to(comfy_server.ROOT))


def main() -> int:
    """Write pages and pictures; return the exit status."""
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
    why_not = comfy_server.missing_comfyui() or frontend.missing_browser()
    if why_not:
        print(f"No pictures: {why_not}.", file=sys.stderr)
        return 1
    make_pictures(list(words("en")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
