"""A ComfyUI workflow in API format: its nodes by title, and copies of it with other inputs."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OmniAlphaError
from ..json_files import read_json
from ..tasks import LOOKS, PIXELS

MEDIA = {
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".exr",
    ".mp4", ".webm", ".mov", ".mkv", ".wav", ".mp3", ".flac", ".ogg", ".glb", ".obj", ".ply",
}  # fmt: skip
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}

# Nodes with an input that names a file in ComfyUI's input folder. Others are known by the media file that stands there.
FILE_INPUTS = {
    ("LoadImage", "image"), ("LoadImageMask", "image"), ("LoadAudio", "audio"), ("LoadVideo", "file"),
    ("Load3D", "model_file"), ("VHS_LoadVideo", "video"),
}  # fmt: skip


class Role(NamedTuple):
    """Where --image, --guide, --text and such names go: inputs by class, told apart by words in their node's title."""

    inputs: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    only_titled: tuple[tuple[str, str], ...] = ()  # inputs that count only where the title has one of the words


ROLES = {
    "image": Role((("LoadImage", "image"),), ("image", "picture", "photo")),
    "guide": Role((("LoadImageMask", "image"),), ("guide", "mask", "trimap"), (("LoadImage", "image"),)),
    "text": Role(
        (
            ("OmniAlphaTask", "text"),
            ("OmniAlphaInstruct", "instruction"),
            ("CLIPTextEncode", "text"),
            ("TextEncodeQwenImageEdit", "prompt"),
            ("TextEncodeQwenImageEditPlus", "prompt"),
            ("PrimitiveString", "value"),
            ("PrimitiveStringMultiline", "value"),
        ),
        ("text", "prompt", "positive"),
    ),
    "pixels": Role((("OmniAlphaTask", "pixels"),), ("pixels",)),
    "look": Role((("OmniAlphaTask", "look"),), ("look",)),
}

# What an input may be, where that is known here; a server tells of the rest.
CHOICES = {("OmniAlphaTask", "pixels"): PIXELS, ("OmniAlphaTask", "look"): LOOKS}


@dataclass(frozen=True, order=True)
class Target:
    """An input of a node."""

    node: str
    input: str


class Workflow:
    """An API-format graph.

    Args:
        prompt: node id -> {"class_type", "inputs", "_meta": {"title"}}.
        name: what messages call it.

    Raises:
        OmniAlphaError: it is not such a graph.
    """

    def __init__(self, prompt: Mapping[str, Any], name: str = "The workflow"):
        _check(prompt, name)
        self.prompt, self.name = prompt, name

    @classmethod
    def read(cls, path: str | Path) -> Workflow:
        """The workflow of a file. Raises OmniAlphaError where it cannot be read or is none."""
        return cls(read_json(path, advice="Export it from ComfyUI: Workflow, Export (API)."), str(path))

    def content(self) -> dict[str, Any]:
        """What decides about the result: the graph without titles, for hashing."""
        return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in self.prompt.items()}

    def title(self, node: str) -> str:
        """What a node is called in the editor."""
        return (self.prompt[node].get("_meta") or {}).get("title") or self.prompt[node]["class_type"]

    def value(self, target: Target) -> Any:
        """What the workflow itself says for an input."""
        return self.prompt[target.node]["inputs"].get(target.input)

    def takes_file(self, target: Target) -> bool:
        """Whether an input names a file of ComfyUI's input folder."""
        value = self.value(target)
        known = (self.prompt[target.node]["class_type"], target.input) in FILE_INPUTS
        return known or (isinstance(value, str) and Path(value).suffix.lower() in MEDIA)

    def find(self, name: str) -> Target:
        """The input that a name means: `NODE.INPUT` or `NODE`, by title or id, or a role, see `ROLES`.

        Raises:
            OmniAlphaError: nothing or more than one thing has that name; the message lists what there is.
        """
        nodes = self._called(name)
        if nodes:
            return self._only_input(self._one(nodes, name))
        for dot in (match.start() for match in re.finditer(r"\.", name)):
            nodes = self._called(name[:dot])
            if nodes:
                return self._input(self._one(nodes, name), name[dot + 1 :])
        if name.lower() in ROLES:
            return self._role(name.lower())
        raise OmniAlphaError(f"{self.name} has no node called '{name}'. {self._choices()}")

    def changed(self, values: Mapping[Target, Any], anew: Collection[str] = (), mark: str = "") -> dict[str, Any]:
        """A copy of the graph with these inputs.

        Args:
            anew: nodes that are to run even where the server remembers their results. ComfyUI knows a node again by
                its inputs, those it has no use for included, so `mark` is given to them as one. (`/free` would empty
                the whole cache, but it unloads models too, in which ComfyUI 0.8.0 can lose its worker thread.)
            mark: differs from attempt to attempt.
        """
        prompt = copy.deepcopy(dict(self.prompt))
        for target, value in values.items():
            prompt[target.node]["inputs"][target.input] = value
        for node in anew:
            # A node that another one expanded into is none of the graph's own: then all run.
            for key in [node] if node in prompt else prompt:
                prompt[key]["inputs"]["_anew"] = mark
        return prompt

    def convert(self, target: Target, value: Any) -> Any:
        """`value`, which may be a word from a table, as the kind of thing that the workflow has there.

        Raises:
            OmniAlphaError: it is no number where the workflow has one, or none of `CHOICES`.
        """
        now, choices = self.value(target), CHOICES.get((self.prompt[target.node]["class_type"], target.input))
        if choices and value not in choices:
            raise OmniAlphaError(
                f"'{value}' is no value for {self.describe(target)}, expected one of: {', '.join(choices)}."
            )
        if not isinstance(value, str) or isinstance(now, str) or now is None:
            return value
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        try:
            if isinstance(now, bool):
                return words[value.strip().lower()]
            return int(value) if isinstance(now, int) and re.fullmatch(r"\s*-?\d+\s*", value) else float(value)
        except (ValueError, KeyError):
            raise OmniAlphaError(f"'{value}' is no value for {self.describe(target)}, which is {now!r}.") from None

    def describe(self, target: Target) -> str:
        """An input in words."""
        return f"'{self.title(target.node)}.{target.input}' (node {target.node})"

    def classes(self) -> set[str]:
        """The classes of its nodes."""
        return {node["class_type"] for node in self.prompt.values()}

    def _called(self, name: str) -> list[str]:
        if name in self.prompt:
            return [name]
        return [key for key in self.prompt if self.title(key).lower() == name.lower()]

    def _one(self, nodes: list[str], name: str) -> str:
        if len(nodes) > 1:
            raise OmniAlphaError(
                f"{self.name} has {len(nodes)} nodes for '{name}': {', '.join(nodes)}. Say which one by its id, or "
                f"give them different titles."
            )
        return nodes[0]

    def _free(self, node: str) -> list[str]:
        """Inputs of a node that are values, not links."""
        return [name for name, value in self.prompt[node]["inputs"].items() if not is_link(value)]

    def _input(self, node: str, name: str) -> Target:
        inputs = self.prompt[node]["inputs"]
        if name not in inputs:
            raise OmniAlphaError(f"Node '{self.title(node)}' has no input '{name}'; it has {_list(self._free(node))}.")
        if is_link(inputs[name]):
            raise OmniAlphaError(
                f"'{name}' of node '{self.title(node)}' is connected to node {inputs[name][0]}; set that node's input."
            )
        return Target(node, name)

    def _only_input(self, node: str) -> Target:
        free = self._free(node)
        files = [name for name in free if self.takes_file(Target(node, name))]
        chosen = files if len(files) == 1 else free
        if len(chosen) != 1:
            raise OmniAlphaError(
                f"Node '{self.title(node)}' has {len(free)} inputs: {_list(free)}. Say '{self.title(node)}.INPUT'."
            )
        return Target(node, chosen[0])

    def _role(self, name: str) -> Target:
        role = ROLES[name]
        titled = {key for key in self.prompt if set(re.findall(r"\w+", self.title(key).lower())) & set(role.words)}
        found = [
            Target(key, entry)
            for key, node in self.prompt.items()
            for entry in self._free(key)
            if (node["class_type"], entry) in role.inputs
            or (key in titled and (node["class_type"], entry) in role.only_titled)
        ]
        chosen = found if len(found) == 1 else [target for target in found if target.node in titled]
        if len(chosen) == 1:
            return chosen[0]
        if found:
            raise OmniAlphaError(
                f"{self.name} has several inputs that could be the {name}: {_list(map(self.describe, found))}. Give "
                f"one the title '{name}', or name the input: --input 'TITLE.INPUT=...'."
            )
        looked = _list(".".join(pair) for pair in (*role.inputs, *role.only_titled))
        raise OmniAlphaError(
            f"{self.name} has no input for the {name}; looked for {looked}. Name it: --input 'TITLE.INPUT=...'. "
            f"{self._choices()}"
        )

    def _choices(self) -> str:
        rows = [f"{key} '{self.title(key)}': {_list(self._free(key))}" for key in self.prompt if self._free(key)]
        return "It has these inputs:\n  " + "\n  ".join(rows)


def is_link(value: Any) -> bool:
    """Whether an input is a link to another node's output."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _check(prompt: Any, name: str) -> None:
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        raise OmniAlphaError(
            f"{name} is a workflow as the editor saves it. Servers take the API format: in ComfyUI choose Workflow, "
            f"Export (API), and give that file."
        )
    if not isinstance(prompt, dict) or not prompt:
        raise OmniAlphaError(f"{name} is no workflow in API format: expected an object of nodes by id.")
    for key, node in prompt.items():
        node = node if isinstance(node, dict) else {}
        if not (isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)):
            raise OmniAlphaError(f"{name} is no workflow in API format: entry '{key}' has no class_type and inputs.")
        for input_name, value in node["inputs"].items():
            if is_link(value) and value[0] not in prompt:
                raise OmniAlphaError(f"{name}: '{input_name}' of node {key} comes from node {value[0]}, not there.")
