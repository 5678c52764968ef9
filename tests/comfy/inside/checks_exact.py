"""Against what diffusers computes, see tests/reference.py: noise levels, whole runs, other shapes, LoRA's strengths."""

import json
import shutil
from pathlib import Path

import comfy.lora
import comfy.supported_models
import torch
from inside import fails, golden, job, micro, part, run, worst
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TOLERANCE = job["tolerance"]


def reference(name: str) -> dict[str, torch.Tensor]:
    return load_file(Path(job["reference"]) / f"{name}.safetensors")


def check_sigmas_are_diffusers_bit_for_bit():
    """The node's; the task node calls the same function."""
    model, _, _ = micro()
    assert part("nodes.task").sigmas is part("omnialpha.model.sampling").sigmas
    levels = reference("sigmas")
    for name, wanted in levels.items():
        steps, tokens = map(int, name.split("."))
        latent = {"samples": torch.zeros(1, 16, 1, 4, tokens)}  # two rows of patches, tokens / 2 in each
        for sources in ((), (model,)):
            (found,) = run("OmniAlphaSigmas", latent, steps, *sources)
            assert torch.equal(found, wanted) or (steps == 1 and wanted[0].isnan()), name
    return {"schedules": len(levels)}


def load_golden(lora: bool):
    """The fixtures' MODEL, whose latents are normalised as they come."""
    statistics = {"latents_mean": [0.0] * 16, "latents_std": [1.0] * 16}
    model = part("nodes.adapters.transformer").load_transformer(golden("dit/transformer"), statistics)
    return part("nodes.adapters.lora").apply_lora(model, Path(job["reference"]) / "lora") if lora else model


def check_runs_end_where_diffusers_ends():
    sampling, library = part("nodes.adapters.sampling"), part("omnialpha.model.sampling")
    tensors, measured = reference("runs"), {}
    with safe_open(Path(job["reference"]) / "runs.safetensors", "pt") as file:
        runs = {name: json.loads(about) for name, about in file.metadata().items()}
    for name, about in runs.items():
        case = {key.split(".", 1)[1]: t for key, t in tensors.items() if key.split(".")[0] == name}
        references = {"reference_latents": [case[f"input{i}"] for i in range(len(about["inputs"]))]}
        conditionings = [[[case[key], references if about["inputs"] else {}]] for key in ("context", "negative")]
        model, noise = sampling.ensure_patched(load_golden(about["lora"])), case["noise"]
        levels = library.sigmas(about["steps"], noise[0, 0].numel() // 4)
        asked = {
            "scale": about["guidance"],
            "seed": 0,
            "sampler": "euler",
            "progress": sampling.RunProgress(len(levels)),
        }
        asked |= dict(zip(("positive", "negative"), conditionings))
        found = sampling.sample(model, torch.zeros_like(noise), levels, **asked)
        measured[name] = worst(found, case["out"])
    assert max(measured.values()) < TOLERANCE, measured
    return measured


def check_pictures_of_other_shapes():
    codec, cases = part("nodes.adapters.layer_vae"), reference("pictures")
    vae = codec.build_vae(
        {k: t.float() for k, t in load_file(golden("vae/diffusion_pytorch_model.safetensors")).items()}, "fixture"
    )
    measured = {}
    for name in sorted({key.split(".")[0] for key in cases}):
        (latent,) = codec.encode(vae, [cases[f"{name}.layer"]])
        (decoded,) = codec.decode(vae, cases[f"{name}.latent"])
        measured[name] = [worst(latent, cases[f"{name}.latent"]), worst(decoded, cases[f"{name}.decoded"])]
    assert max(map(max, measured.values())) < TOLERANCE, measured
    return measured


def check_prompts_with_pictures_of_other_shapes():
    import checks_text

    clip = part("nodes.adapters.window_order").in_picture_order(checks_text.golden_clip())
    cases, measured = reference("prompts"), {}
    for name in sorted({key.split(".")[0] for key in cases}):
        case = {key.split(".", 1)[1]: t for key, t in cases.items() if key.split(".")[0] == name}
        pictures = [case[key][None].float() / 255 for key in sorted(case) if key.startswith("picture")]
        images = iter([{"type": "image", "data": picture, "original_type": "image"} for picture in pictures])
        ids = case["ids"].tolist()
        row = [(next(images) if token == checks_text.IMAGE_ID else token, 1.0) for token in ids]
        measured[name] = worst(clip.encode_from_tokens({"qwen25_7b": [row]}), case["embeds"])
    assert max(measured.values()) < TOLERANCE, measured
    return measured


def copied_micro(name: str) -> Path:
    """A copy of micro among the checkpoints to choose from."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "omnialpha" / name
    shutil.copytree(job["micro"], folder)
    return folder


def check_load_checkpoint_reads_the_loras_alpha():
    """From diffusers' metadata or from PEFT's own file, of which ComfyUI's reader knows neither."""
    folder, name = copied_micro("with-alpha"), "transformer_blocks.0.attn.to_q"
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, 128, generator=generator), torch.randn(128, 4, generator=generator)
    tensors = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    weight = micro()[0].model.diffusion_model.get_parameter(f"{name}.weight").detach()
    file, key = folder / "lora/adapter_model.safetensors", f"diffusion_model.{name}.weight"
    file.parent.mkdir()
    forms = (
        (2, {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8, "text_encoder.lora_alpha": 1})}, None),
        (4, {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "use_rslora": True})}, None),
        (0.5, {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"to_q": 2}})}, None),
        (3, None, {"lora_alpha": 12, "peft_type": "LORA"}),
        (1, None, None),
    )
    for strength, metadata, beside in forms:
        save_file(tensors, file, metadata)
        file.with_name("adapter_config.json").write_text(json.dumps(beside or {}))
        if beside is None:
            file.with_name("adapter_config.json").unlink()
        model, *_ = run("OmniAlphaLoadCheckpoint", "with-alpha")
        assert list(model.patches) == [key]
        found = comfy.lora.calculate_weight(model.patches[key], weight.clone(), key)
        assert worst(found, weight + strength * (up @ down)) < 1e-5, (strength, metadata, beside)
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps({"lora_alpha": "8"})})
    fails(lambda: run("OmniAlphaLoadCheckpoint", "with-alpha"), "lora_alpha = '8'", "adapter_model")
    shutil.rmtree(folder)


def check_load_checkpoint_judges_the_vaes_statistics():
    """As the library does, before anything heavy is loaded."""
    folder, library = copied_micro("odd-vae"), part("omnialpha.checkpoint.vae_keys")
    path = folder / "vae/config.json"
    good = json.loads(path.read_text())
    changes = (
        {"latents_mean": good["latents_mean"][:15]},
        {"latents_std": [0.0] * 16},
        {"latents_std": [-1.0] * 16},
        {"latents_std": [float("nan")] * 16},
        {"latents_std": [float("inf")] * 16},
        {"latents_mean": ["0"] * 16},
        {"latents_mean": "text"},
        {"latents_std": None},
        {"latents_mean": None},
    )
    for change in changes:
        path.write_text(json.dumps(good | change))
        words = fails(lambda: run("OmniAlphaLoadCheckpoint", "odd-vae"), next(iter(change)))
        assert words == fails(lambda: library.read_statistics(path.parent)), change
    path.write_text(json.dumps(good | {"latents_mean": None, "latents_std": None}))
    model, *_ = run("OmniAlphaLoadCheckpoint", "odd-vae")
    fresh = comfy.supported_models.QwenImage({}).latent_format
    assert torch.equal(model.model.latent_format.latents_std, fresh.latents_std), "Qwen-Image's where it says nothing"
    shutil.rmtree(folder)
