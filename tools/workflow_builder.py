"""Lay out nodes as the frontend saves them: workflows to open, and the inside of blueprints.

    board = Board()
    loader = board.add("OmniAlphaLoadCheckpoint", "Load micro", (0, 0), (320, 110))
    board.add("OmniAlphaTask", "Cut out", (400, 0), (400, 660), model=loader["MODEL"], task="matting_auto")
    board.workflow("omnialpha_example")

What sockets and widgets a node has is read from the schema snapshot the tests hold (tests/comfy/object_info.json), so
that a node which gains an input gains it here as well. Standard library only.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_OURS = json.loads((ROOT / "tests/comfy/object_info.json").read_text(encoding="utf-8"))


def _core(outputs: str, **inputs: tuple) -> dict:
    """A schema of somebody else's node: inputs as (type, options), outputs as names that are types as well."""
    return {
        "input": {"required": {name: list(spec) for name, spec in inputs.items()}},
        "input_order": {"required": list(inputs)},
        "output": outputs.split(),
        "output_name": outputs.split(),
    }


def _widget(kind: str, default=None) -> tuple:
    return kind, {"default": default}


# Nodes of ComfyUI and, last, of the GGUF pack that our workflows use.
_THEIRS = {
    "LoadImage": _core("IMAGE MASK", image=_widget("COMBO"), upload=_widget("IMAGEUPLOAD", "image")),
    "LoadImageMask": _core(
        "MASK", image=_widget("COMBO"), channel=_widget("COMBO", "red"), upload=_widget("IMAGEUPLOAD", "image")
    ),
    "PreviewImage": _core("", images=("IMAGE", {})),
    "ImageFromBatch": _core("IMAGE", image=("IMAGE", {}), batch_index=_widget("INT", 0), length=_widget("INT", 1)),
    "ImageBlur": _core(
        "IMAGE", image=("IMAGE", {}), blur_radius=_widget("INT", 1), sigma=_widget("FLOAT", 1.0)
    ),
    "BatchImagesNode": _core("IMAGE", **{f"images.image{k}": ("IMAGE", {"label": f"image{k}"}) for k in range(3)}),
    "UNETLoader": _core("MODEL", unet_name=_widget("COMBO"), weight_dtype=_widget("COMBO", "default")),
    "LoraLoaderModelOnly": _core(
        "MODEL", model=("MODEL", {}), lora_name=_widget("COMBO"), strength_model=_widget("FLOAT", 1)
    ),
    "CLIPLoader": _core(
        "CLIP", clip_name=_widget("COMBO"), type=_widget("COMBO", "qwen_image"), device=_widget("COMBO", "default")
    ),
    "MaskToImage": _core("IMAGE", mask=("MASK", {})),
    "RandomNoise": _core("NOISE", noise_seed=("INT", {"default": 0, "control_after_generate": True})),
    "KSamplerSelect": _core("SAMPLER", sampler_name=_widget("COMBO", "euler")),
    "CFGGuider": _core(
        "GUIDER", model=("MODEL", {}), positive=("CONDITIONING", {}), negative=("CONDITIONING", {}),
        cfg=_widget("FLOAT", 8.0),
    ),
    "SamplerCustomAdvanced": _core(
        "LATENT LATENT", noise=("NOISE", {}), guider=("GUIDER", {}), sampler=("SAMPLER", {}), sigmas=("SIGMAS", {}),
        latent_image=("LATENT", {}),
    ) | {"output_name": ["output", "denoised_output"]},
    "UnetLoaderGGUF": _core("MODEL", unet_name=_widget("COMBO")),
}  # fmt: skip
_THEIRS["CLIPLoader"]["input"]["optional"] = {"device": _THEIRS["CLIPLoader"]["input"]["required"].pop("device")}
_THEIRS["BatchImagesNode"]["input"]["optional"] = {
    "images.image2": _THEIRS["BatchImagesNode"]["input"]["required"].pop("images.image2")
}
GROWING, GROWN = "COMFY_AUTOGROW_V3", 3  # inputs that grow, and how many sockets of theirs are put down
UPLOAD_LABEL = "choose file to upload"  # how the frontend calls the upload widget
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGEUPLOAD"}
COLOURS = ("#3f6f9e", "#3f8f5f", "#7a4f9e", "#a5803a", "#5a5f6a")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "comfyui-omnialpha")


def stable_id(*names: str) -> str:
    """An id that is the same each time it is made."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(names)))


@dataclass(frozen=True)
class Socket:
    """One input of a schema."""

    name: str
    kind: str
    options: dict
    optional: bool

    @property
    def is_widget(self) -> bool:
        return self.kind in WIDGETS


def schema(node_type: str) -> dict:
    """The schema of a node, in the format of ComfyUI's /object_info."""
    return _OURS.get(node_type) or _THEIRS[node_type]


def sockets(node_type: str) -> list[Socket]:
    """Inputs of a node as the frontend orders them: sockets first, then widgets."""
    found = [
        socket
        for part in ("required", "optional")
        for name, spec in schema(node_type)["input"].get(part, {}).items()
        for socket in _grown(Socket(name, spec[0], spec[1] if len(spec) > 1 else {}, part == "optional"))
    ]
    return sorted(found, key=lambda socket: socket.is_widget)


def _grown(socket: Socket) -> list[Socket]:
    """The sockets of an input that grows, of which the least number has to be connected; of others itself."""
    if socket.kind != GROWING:
        return [socket]
    row = socket.options["template"]
    (kind, _), *_ = row["input"]["required"].values()
    return [
        Socket(f"{socket.name}.{row['prefix']}{k}", kind, {"label": f"{row['prefix']}{k}"}, k >= row["min"])
        for k in range(GROWN)
    ]


class Wire(NamedTuple):
    """An output to connect: node id, slot, type."""

    node: int
    slot: int
    kind: str


@dataclass
class Board:
    """Nodes, links and groups, in the order they are put down."""

    nodes: list[dict] = field(default_factory=list)
    links: list[list] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)

    def note(self, text: str, size: tuple[int, int], title: str = "Read me", at: tuple[int, int] = (0, 0)) -> None:
        """A note in Markdown."""
        node = self._put("MarkdownNote", title, at, size, {}, widgets_values=[text])
        node.update(color="#432", bgcolor="#653")

    def add(
        self,
        node_type: str,
        title: str,
        at: tuple[int, int],
        size: tuple[int, int],
        properties: dict | None = None,
        **given,
    ) -> dict[str, Wire]:
        """Put a node down.

        Args:
            given: per input a value, or the `Wire` that is connected to it; dots in names are written "__".

        Returns:
            the node's outputs by name.

        Raises:
            KeyError: the node has no input of a given name.
        """
        given = {name.replace("__", "."): value for name, value in given.items()}
        inputs, values, node_id = [], [], len(self.nodes) + 1
        for socket in sockets(node_type):
            value = given.pop(socket.name, socket.options.get("default"))
            link = None
            if isinstance(value, Wire):
                link = self._connect(value, node_id, len(inputs))
                value = socket.options.get("default")
            inputs.append(_saved_input(socket, link))
            if socket.is_widget:
                values.append(value)
                if socket.options.get("control_after_generate"):
                    values.append("fixed")
        if given:
            raise KeyError(f"{node_type} has no input {', '.join(given)}")
        kinds, names = schema(node_type)["output"], schema(node_type)["output_name"]
        outputs = [
            {"localized_name": name, "name": name, "type": kind, "links": None} for name, kind in zip(names, kinds)
        ]
        node = self._put(
            node_type, title, at, size, {"Node name for S&R": node_type, **(properties or {})}, inputs, outputs, values
        )
        return {name: Wire(node["id"], slot, kind) for slot, (name, kind) in enumerate(zip(names, kinds))}

    def group(self, title: str, left: int, top: int, right: int, bottom: int) -> None:
        """A coloured frame; its number is put before the title."""
        number = len(self.groups) + 1
        self.groups.append(
            {
                "id": number,
                "title": f"{number}  {title}",
                "bounding": [left, top, right - left, bottom - top],
                "color": COLOURS[(number - 1) % len(COLOURS)],
                "font_size": 24,
                "flags": {},
            }
        )

    def workflow(self, name: str, extra: dict | None = None) -> dict:
        """What the frontend would save."""
        return {
            "id": stable_id(name),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": extra or {},
            "version": 0.4,
        }

    def give(self, wire: Wire, target: int, slot: int) -> int:
        """Connect an output to something that is no node, such as the edge of a subgraph; the link's id."""
        return self._connect(wire, target, slot)

    def _put(
        self,
        node_type,
        title,
        at,
        size,
        properties,
        inputs: Sequence[dict] = (),
        outputs: Sequence[dict] = (),
        widgets_values: Sequence = (),
    ) -> dict:
        node = {
            "id": len(self.nodes) + 1,
            "type": node_type,
            "pos": list(at),
            "size": list(size),
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": list(inputs),
            "outputs": list(outputs),
            "title": title,
            "properties": properties,
        }
        if widgets_values:
            node["widgets_values"] = list(widgets_values)
        self.nodes.append(node)
        return node

    def _connect(self, wire: Wire, target: int, slot: int) -> int:
        link = len(self.links) + 1
        self.links.append([link, wire.node, wire.slot, target, slot, wire.kind])
        if wire.node > 0:  # others are the edges of a subgraph
            output = self.nodes[wire.node - 1]["outputs"][wire.slot]
            output["links"] = [*(output["links"] or []), link]
        return link


def _saved_input(socket: Socket, link: int | None) -> dict:
    """An input as the frontend saves it; its key order too, so that a saved file differs only where it changed."""
    label = socket.options.get("label") or (None if socket.is_widget else socket.options.get("display_name"))
    saved = {"label": label} if label else {}
    saved["localized_name"] = UPLOAD_LABEL if socket.kind == "IMAGEUPLOAD" else socket.name
    saved["name"] = socket.name
    if socket.optional:
        saved["shape"] = 7
    saved["type"] = socket.kind
    if socket.is_widget:
        saved["widget"] = {"name": socket.name}
    return saved | {"link": link}
