"""What the tests on a real ComfyUI share: graphs in API format, pictures, and the library's answer to compare with."""

from __future__ import annotations

import json
import subprocess
from itertools import count
from pathlib import Path

import comfy_server
import numpy as np
import pytest
import reference
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Graph:
    """An API-format graph, built node by node.

    `graph.add("OmniAlphaLayer", image=picture)` returns the node's outputs, which are links: `loader[0]` is its first.
    """

    def __init__(self):
        self.prompt: dict = {}
        self._ids = count(1)

    def add(self, class_type: str, **inputs) -> list[list]:
        """A node; the list holds a link to each of its first eight outputs."""
        node = str(next(self._ids))
        # Growing sockets are written "layers.layer0" on the wire; "__" stands for the dot here.
        self.prompt[node] = {
            "class_type": class_type,
            "inputs": {name.replace("__", "."): value for name, value in inputs.items()},
        }
        return [[node, slot] for slot in range(8)]


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture(scope="session")
def photo(comfy) -> str:
    """Name of an RGB picture, 96 x 80, in ComfyUI's input folder."""
    return _put(comfy, "photo.png", _blotches(1, 80, 96, 3), "RGB")


@pytest.fixture(scope="session")
def cutout(comfy) -> str:
    """Name of an RGBA picture, 72 x 64, in ComfyUI's input folder; colours are hidden under its transparent half."""
    pixels = _blotches(2, 64, 72, 4)
    pixels[:, :30, 3] = 0
    pixels[:, 40:, 3] = 255
    return _put(comfy, "cutout.png", pixels, "RGBA")


@pytest.fixture(scope="session")
def drawn_mask(comfy) -> str:
    """Name of a picture the size of `photo` whose red channel is a mask, for LoadImageMask."""
    pixels = np.zeros((80, 96, 3), np.uint8)
    pixels[20:60, 30:70] = 255
    return _put(comfy, "mask.png", pixels, "RGB")


@pytest.fixture(scope="session")
def scene(comfy) -> str:
    """Name of an RGB picture, 320 x 240, with a small red disc on faint blotches, where micro finds it by itself."""
    pixels = _blotches(3, 240, 320, 3) // 20 + 121
    pixels[_disc()] = (230, 50, 25)
    return _put(comfy, "scene.png", pixels, "RGB")


@pytest.fixture(scope="session")
def scene_mask(comfy) -> str:
    """Name of a picture whose red channel is white on the disc of `scene`, for LoadImageMask."""
    return _put(comfy, "scene_mask.png", _disc()[..., None].repeat(3, -1).astype(np.uint8) * 255, "RGB")


def _disc() -> np.ndarray:
    rows, columns = np.indices((240, 320))
    return (rows - 144) ** 2 + (columns - 96) ** 2 < 18**2


def _blotches(seed: int, height: int, width: int, channels: int) -> np.ndarray:
    noise = torch.randn(1, channels, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    soft = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0]
    return (torch.sigmoid(2 * soft) * 255).round().byte().movedim(0, -1).numpy().copy()


def _put(comfy, name: str, pixels: np.ndarray, mode: str) -> str:
    assert Image.fromarray(pixels).mode == mode
    Image.fromarray(pixels).save(comfy.base / "input" / name)
    return name


@pytest.fixture(scope="session")
def pipeline():
    """The library's own pipeline on micro."""
    from omnialpha.pipeline import OmniAlphaPipeline

    return OmniAlphaPipeline.from_pretrained("micro")


@pytest.fixture(scope="session")
def inside(run_inside, tmp_path_factory, comfyui) -> dict[str, dict]:
    """What the checks of `inside/` found: name -> {"error", "measured"}. They share one process per ComfyUI."""
    scratch = tmp_path_factory.mktemp("inside")
    reference.write(scratch / "reference")
    _write_trained_lora(ROOT / "tests/golden/dit", scratch / "loras/trained.safetensors")
    known = {"reference": str(scratch / "reference"), "tolerance": reference.TOLERANCE}
    return run_inside(comfyui, scratch, **known, **_published_shapes())


@pytest.fixture(scope="session")
def run_inside():
    """Runs `inside/run.py` with a ComfyUI in a scratch folder; `more` goes into its job. Gives its results by name."""

    def run(comfyui: Path, scratch: Path, **more) -> dict[str, dict]:
        paths = {"pack": ROOT, "golden": ROOT / "tests/golden", "micro": ROOT / "omnialpha/micro", "scratch": scratch}
        (scratch / "job.json").write_text(json.dumps({name: str(path) for name, path in paths.items()} | more))
        base = scratch / "base"
        for folder in ("models/omnialpha", "models/vae", "output", "temp", "input", "custom_nodes"):
            (base / folder).mkdir(parents=True)
        command = [comfy_server.find_python(comfyui), HERE / "inside/run.py", comfyui, base, scratch / "job.json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800)
        lines = [line for line in done.stdout.splitlines() if line.startswith("CHECK ")]
        results = [json.loads(line.removeprefix("CHECK ")) for line in lines]
        if not results or done.returncode:
            raise RuntimeError(f"The checks did not run to their end:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return {result["name"]: result for result in results}

    return run


def _write_trained_lora(dit: Path, file: Path) -> None:
    """The authors' LoRA as our trainer would write it, had it learnt that one."""
    from diffusers import QwenImageTransformer2DModel
    from safetensors.torch import load_file

    from omnialpha.train.config import LoraConfig
    from omnialpha.train.lora import add_lora, write_lora

    tensors = load_file(dit / "lora_rank4.safetensors")
    layers = {key.removeprefix("transformer.").split(".lora_")[0] for key in tensors}
    config = LoraConfig(rank=4, targets=tuple(sorted(layers)))
    transformer = QwenImageTransformer2DModel.from_pretrained(dit / "transformer", torch_dtype=torch.float32)
    add_lora(transformer, config)
    with torch.no_grad():
        for name, param in transformer.named_parameters():
            if ".lora_" in name:
                param.copy_(tensors[f"transformer.{name.replace('.default', '')}"])
    file.parent.mkdir()
    write_lora(transformer, config, file)


def _published_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the public checkpoint's tensors, as diffusers and transformers define and save them."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    with torch.device("meta"):
        models = {
            "full_transformer": QwenImageTransformer2DModel(),
            "full_vae": AutoencoderKLQwenImage(base_dim=96, input_channels=4),
            "full_text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        }
    return {
        name: {key: list(tensor.shape) for key, tensor in model.state_dict().items()} for name, model in models.items()
    }
