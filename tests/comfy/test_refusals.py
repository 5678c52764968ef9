"""What goes wrong says so in the HTTP answer, and an interrupt leaves a server that works."""

import re
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnialpha.checkpoint.vae_keys import to_wan

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture
def task(graph):
    """Adds a loader, OmniAlphaTask and a save node with these inputs."""

    def add(**inputs):
        model, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
        standard = {
            "model": model,
            "clip": clip,
            "vae": vae,
            "task": "matting_auto",
            "text": "",
            "instruction": "",
            "seed": 0,
            "steps": 2,
            "guidance": 1.0,
            "sampler": "euler",
            "fit": "scale",
        }
        layers = graph.add("OmniAlphaTask", **standard | inputs)[0]
        graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix="refused")

    return add


@pytest.fixture(scope="session")
def rgb_vae(comfy) -> str:
    """Name of an RGB VAE file that ComfyUI's own loader takes."""
    weights = load_file(GOLDEN / "vae/diffusion_pytorch_model.safetensors")
    weights["encoder.conv_in.weight"] = weights["encoder.conv_in.weight"][:, :3].contiguous()
    for name in ("weight", "bias"):
        weights[f"decoder.conv_out.{name}"] = weights[f"decoder.conv_out.{name}"][:3].contiguous()
    save_file(to_wan(weights), comfy.base / "models/vae/rgb.safetensors")
    return "rgb.safetensors"


@pytest.fixture(scope="session")
def other_model(comfy) -> str:
    """Name of a file that ComfyUI takes for a (very small) Stable Diffusion 3."""
    shapes = {
        "joint_blocks.0.context_block.attn.qkv.weight": (192, 64),
        "x_embedder.proj.weight": (64, 16, 2, 2),
        "final_layer.linear.weight": (64, 64),
        "y_embedder.mlp.0.weight": (64, 8),
        "context_embedder.weight": (64, 8),
        "pos_embed": (1, 16, 64),
    }
    folder = comfy.base / "models/diffusion_models"
    folder.mkdir(exist_ok=True)
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "other.safetensors")
    return "other.safetensors"


def refusal(comfy, graph) -> str:
    """Why a graph was refused, either before it ran (HTTP 400) or while it did (its history)."""
    answer = comfy.post("/prompt", {"prompt": graph.prompt})
    if "prompt_id" not in answer:
        return " ".join(error["details"] for node in answer["node_errors"].values() for error in node["errors"])
    entry = comfy.wait(answer["prompt_id"])
    errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert errors, "the graph ran"
    assert errors[0]["exception_type"].endswith("OmniAlphaError"), errors[0]
    return errors[0]["exception_message"]


def test_task_without_its_picture(comfy, graph, task):
    task()
    assert "'matting_auto' needs a picture" in refusal(comfy, graph)


def test_task_without_its_guide(comfy, graph, task, photo):
    task(task="removal_mask", image=graph.add("LoadImage", image=photo)[0])
    assert "'removal_mask' needs a guide" in refusal(comfy, graph)


def test_task_without_its_text(comfy, graph, task):
    task(task="text_to_rgba")
    assert "'text_to_rgba' needs text" in refusal(comfy, graph)


def test_unknown_task(comfy, graph, task):
    task(task="mating_auto")
    assert "Did you mean 'matting_auto'" in refusal(comfy, graph)


def test_one_side_of_a_size(comfy, graph, photo):
    image = graph.add("LoadImage", image=photo)[0]
    _, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    sequence = graph.add("OmniAlphaSequence", layers__layer0=image, targets=1, width=64, height=0, fit="scale")[0]
    latent = graph.add("OmniAlphaInstruct", clip=clip, vae=vae, sequence=sequence, instruction="", negative="")[2]
    graph.add("OmniAlphaPreviewLayers", layers=graph.add("OmniAlphaDecodeLayers", vae=vae, latent=latent)[0])
    assert "width is 64 and height 0" in refusal(comfy, graph)


def test_sequence_without_layers(comfy, graph):
    _, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    sequence = graph.add("OmniAlphaSequence", targets=1, width=0, height=0, fit="scale")[0]
    latent = graph.add("OmniAlphaInstruct", clip=clip, vae=vae, sequence=sequence, instruction="", negative="")[2]
    graph.add("OmniAlphaPreviewLayers", layers=graph.add("OmniAlphaDecodeLayers", vae=vae, latent=latent)[0])
    assert "No layer is connected" in refusal(comfy, graph)


def test_sizes_that_differ(comfy, graph, photo, cutout):
    """A latent decoded with a sequence it was not made from."""
    _, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    sequences = []
    for name, side in ((photo, 64), (cutout, 96)):
        image = graph.add("LoadImage", image=name)[0]
        sequence = graph.add("OmniAlphaSequence", layers__layer0=image, targets=1, width=side, height=side, fit="scale")
        sequences.append(sequence[0])
    latent = graph.add("OmniAlphaInstruct", clip=clip, vae=vae, sequence=sequences[0], instruction="", negative="")[2]
    layers = graph.add("OmniAlphaDecodeLayers", vae=vae, latent=latent, sequence=sequences[1])[0]
    graph.add("OmniAlphaPreviewLayers", layers=layers)
    message = refusal(comfy, graph)
    assert "64x64" in message and "96x96" in message and "restore_frame" in message


def test_mask_of_another_size(comfy, graph, task, cutout, drawn_mask):
    guide = graph.add("LoadImageMask", image=drawn_mask, channel="red")[0]
    task(task="matting_mask", image=graph.add("LoadImage", image=cutout)[0], guide=guide)
    message = refusal(comfy, graph)
    assert "96x80" in message and "72x64" in message


def test_wrong_vae(comfy, graph, task, photo, rgb_vae):
    vae = graph.add("VAELoader", vae_name=rgb_vae)[0]
    task(vae=vae, image=graph.add("LoadImage", image=photo)[0])
    message = refusal(comfy, graph)
    assert "3 colour" in message and "OmniAlpha Load VAE" in message


def test_rgb_vae_without_opaque_init(comfy, graph, rgb_vae):
    vae = graph.add("OmniAlphaLoadVAE", vae_name=rgb_vae, opaque_init=False)[0]
    encoded = graph.add(
        "OmniAlphaEncodeLayers", vae=vae, layers=graph.add("EmptyImage", width=32, height=32, batch_size=1, color=0)[0]
    )[0]
    graph.add("OmniAlphaPreviewLayers", layers=graph.add("OmniAlphaDecodeLayers", vae=vae, latent=encoded)[0])
    message = refusal(comfy, graph)
    assert rgb_vae in message and "opaque_init" in message


def test_wrong_model(comfy, graph, task, photo, other_model):
    model = graph.add("UNETLoader", unet_name=other_model, weight_dtype="default")[0]
    task(model=model, image=graph.add("LoadImage", image=photo)[0])
    message = refusal(comfy, graph)
    assert "MODEL is a SD3" in message and "Qwen-Image-Edit-2509" in message


def test_interrupt_frees_the_queue(comfy, graph, task, photo, tmp_path):
    """In the middle of sampling; afterwards the same graph, shorter, gives what it always gave."""
    before = {path for path in comfy.base.rglob("*") if path.is_file() and path.suffix != ".log"}
    picture = graph.add("LoadImage", image=photo)[0]
    task(image=picture, steps=1000)
    node = next(key for key, value in graph.prompt.items() if value["class_type"] == "OmniAlphaTask")
    answer = comfy.post("/prompt", {"prompt": graph.prompt, "client_id": comfy.client_id})
    deadline = time.monotonic() + 120
    while not re.search(r"[1-9]\d*/1000", comfy.output()) and time.monotonic() < deadline:  # its progress bar
        time.sleep(0.02)
    comfy.post("/interrupt", {})
    entry = comfy.wait(answer["prompt_id"], seconds=60)
    assert "1000/1000" not in comfy.output(), "it ran to its end"
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_interrupted" in kinds and not entry["outputs"]
    queue = comfy.get("/queue")
    assert not queue["queue_running"] and not queue["queue_pending"]
    after = {path for path in comfy.base.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert not {path for path in after - before if path.suffix in (".png", ".tmp")}
    graph.prompt[node]["inputs"]["steps"] = 2
    assert comfy.run(graph.prompt)["outputs"]
