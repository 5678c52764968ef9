"""LoRA files in every key style, against the authors' forward pass with one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from reference import TOLERANCE
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from omnialpha.checkpoint.lora import apply_lora, read_lora
from omnialpha.errors import OmniAlphaError
from omnialpha.model.rope import install_rope
from omnialpha.model.tokens import pack, unpack

GOLDEN = Path(__file__).parent / "golden" / "dit"
LORA = GOLDEN / "lora_rank4.safetensors"


@pytest.fixture
def transformer():
    from diffusers import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel.from_pretrained(GOLDEN / "transformer", torch_dtype=torch.float32)
    return install_rope(model).eval()


def restyled(tmp_path, rename, metadata=None, **changes):
    """The fixture's LoRA under other names."""
    path = tmp_path / "lora.safetensors"
    tensors = {rename(key.removeprefix("transformer.")): tensor for key, tensor in load_file(LORA).items()}
    save_file(tensors | changes, path, metadata)
    return path


def kohya(key):
    stem, end = key.rsplit(".lora_", 1)
    side = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[end]
    return f"lora_unet_{stem.replace('.', '_')}.{side}"


STYLES = {
    "bare": lambda key: key,
    "diffusers": lambda key: "transformer." + key,
    "PEFT": lambda key: "base_model.model." + key,
    "PEFT adapter": lambda key: "base_model.model.transformer." + key.replace(".weight", ".default.weight"),
    "ComfyUI": lambda key: "diffusion_model." + key,
    "kohya": kohya,
}


@torch.no_grad()
def velocity(transformer):
    """Case m2n1 of the fixture."""
    with safe_open(GOLDEN / "forward.safetensors", "pt") as file:
        x, ref, context, t = (file.get_tensor(f"m2n1.{key}") for key in ("x", "ref0", "context", "t"))
    tokens, shapes = pack(x, [ref[:, :, 0]])
    out = transformer(tokens, context, timestep=t, img_shapes=shapes, return_dict=False)[0]
    return unpack(out, 2, *x.shape[-2:])


@pytest.mark.parametrize("style", STYLES)
def test_forward_equals_the_authors(transformer, tmp_path, style):
    path = restyled(tmp_path, STYLES[style])
    before = velocity(transformer)
    assert apply_lora(transformer, path) == []
    found, expected = velocity(transformer), load_file(GOLDEN / "forward_lora.safetensors")["m2n1.out"]
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert (found - before).abs().max() > 0.01


def test_names_of_the_full_size_checkpoint(tmp_path):
    """Every layer that the public LoRA may touch has its place in all 60 blocks of Qwen-Image-Edit."""
    from omnialpha.model.loading import build_transformer, shapes_of

    shapes = shapes_of(build_transformer({}))
    assert shapes["transformer_blocks.59.attn.to_q.weight"] == (3072, 3072)
    kinds = {key.split(".", 3)[3].split(".lora_")[0] for key in load_file(LORA)}
    assert len(kinds) == 14
    tensors = {}
    for module in (f"transformer_blocks.{block}.{kind}" for block in (0, 31, 59) for kind in kinds):
        out, width = shapes[f"{module}.weight"]
        tensors[f"transformer.{module}.lora_A.weight"] = torch.zeros(2, width)
        tensors[f"transformer.{module}.lora_B.weight"] = torch.zeros(out, 2)
    save_file(tensors, tmp_path / "full.safetensors")
    placed, unmatched = read_lora(tmp_path / "full.safetensors").match(shapes)
    assert len(placed) == 3 * 14 and not unmatched


def test_strength_follows_alpha_and_metadata(tmp_path):
    module = "transformer_blocks.0.attn.to_q"
    config = json.dumps({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"attn.to_k": 2}})
    lora = read_lora(restyled(tmp_path, STYLES["diffusers"], {"lora_adapter_metadata": config}))
    assert lora.ranks == [4] and lora.style == "diffusers"
    assert lora.strength(module) == 8 / 4
    assert lora.strength("transformer_blocks.1.attn.to_k") == 2 / 4
    assert lora.strength(module, 1.0) == 1 / 4  # a tensor of its own says it more precisely
    assert read_lora(LORA).strength(module) == 1.0


CONFIGS = {
    "alpha": {"r": 4, "lora_alpha": 8},
    "alpha of some layers": {
        "r": 4, "lora_alpha": 6, "alpha_pattern": {"attn.to_k": 2, r"^transformer_blocks\.\d+\.img_mod.1": 20},
    },
    "ranks and alphas of some layers": {
        "r": 4, "lora_alpha": 3, "rank_pattern": {"attn.to_k": 2},
        "alpha_pattern": {"transformer_blocks.1.attn.to_k": 7},
    },
    "rank-stabilised": {
        "r": 4, "lora_alpha": 4, "use_rslora": True, "rank_pattern": {"attn.to_k": 2}, "alpha_pattern": {"to_q": 1},
    },
    "alpha of zero": {"r": 4, "lora_alpha": 0},
    "no alpha": {"r": 4},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_metadata_means_what_it_means_to_diffusers(tmp_path, config):
    """Each layer's strength against that of PEFT's layer, once diffusers has loaded the same file."""
    from diffusers import QwenImageTransformer2DModel

    tensors = load_file(LORA)
    for key in filter(lambda key: "attn.to_k." in key and "rank_pattern" in config, tensors):
        tensors[key] = (tensors[key][:2] if "lora_A" in key else tensors[key][:, :2]).contiguous()
    modules = sorted({key.removeprefix("transformer.").split(".lora_")[0] for key in tensors})
    config = {f"transformer.{name}": value for name, value in (config | {"target_modules": modules}).items()}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(config), "format": "pt"})
    model = QwenImageTransformer2DModel.from_pretrained(GOLDEN / "transformer")
    model.load_lora_adapter(tmp_path, weight_name="lora.safetensors", prefix="transformer")
    lora = read_lora(tmp_path / "lora.safetensors")
    scalings = {module: model.get_submodule(module).scaling["default_0"] for module in modules}
    assert {module: lora.strength(module) for module in modules} == scalings


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_each_models_metadata_is_its_own(tmp_path, prefix):
    config = {f"{prefix}lora_alpha": 8, "text_encoder.lora_alpha": 100, "text_encoder.use_rslora": True}
    lora = read_lora(restyled(tmp_path, STYLES["diffusers"], {"lora_adapter_metadata": json.dumps(config)}))
    assert lora.strength("transformer_blocks.0.attn.to_q") == 2
    alone = {"text_encoder.lora_alpha": 100}
    lora = read_lora(restyled(tmp_path, STYLES["diffusers"], {"lora_adapter_metadata": json.dumps(alone)}))
    assert lora.strength("transformer_blocks.0.attn.to_q") == 1


def test_the_file_that_peft_writes_beside_it(tmp_path):
    path = restyled(tmp_path, STYLES["PEFT"])
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16, "use_rslora": True}))
    assert read_lora(path).strength("transformer_blocks.0.attn.to_q") == 1, "it may belong to another file"
    path = path.rename(tmp_path / "adapter_model.safetensors")
    assert read_lora(path).strength("transformer_blocks.0.attn.to_q") == 8


@pytest.mark.parametrize(
    "config, words",
    [
        ({"lora_alpha": "8"}, "lora_alpha = '8'"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": True}}, "to_q = True"),
        ({"lora_alpha": 8, "alpha_pattern": ["to_q"]}, "alpha_pattern"),
        ({"lora_alpha": 8, "alpha_pattern": {"(a+)+$": 1}}, "expected the name of a layer"),
        ({"lora_alpha": 8, "alpha_pattern": {"[": 1}}, "expected the name of a layer"),
        ({"lora_alpha": 8, "alpha_pattern": {".*.*.*.*": 1}}, "expected the name of a layer"),
        ({"lora_alpha": 8, "use_rslora": "yes"}, "use_rslora"),
    ],
)
def test_metadata_that_decides_nothing_is_named(tmp_path, config, words):
    path = restyled(tmp_path, STYLES["diffusers"], {"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(OmniAlphaError, match=re.escape(words)):
        read_lora(path)


def test_scale_is_linear(transformer):
    weight = transformer.transformer_blocks[0].attn.to_q.weight
    before = weight.detach().clone()
    apply_lora(transformer, LORA, 0.5)
    half = weight.detach() - before
    apply_lora(transformer, LORA, 0.5)
    torch.testing.assert_close(weight.detach() - before, 2 * half)


def test_what_has_no_place_is_reported(transformer, tmp_path):
    path = restyled(
        tmp_path,
        STYLES["bare"],
        **{
            "text_encoder.q.lora_A.weight": torch.zeros(4, 8),
            "text_encoder.q.lora_B.weight": torch.zeros(8, 4),
            "lonely.lora_A.weight": torch.zeros(4, 8),
        },
    )
    unmatched = apply_lora(transformer, path)
    assert len(unmatched) == 2
    assert any("text_encoder.q: the transformer has no such layer" in words for words in unmatched)
    assert any("lonely" in words for words in unmatched)


def test_a_lora_for_another_model_is_refused(transformer, tmp_path):
    path = restyled(tmp_path, lambda key: "unet.down." + key)
    with pytest.raises(OmniAlphaError, match="none of its 28 layers has a place"):
        apply_lora(transformer, path)


def test_another_width_is_refused(tmp_path):
    lora = read_lora(LORA)
    shapes = {f"{module}.weight": (7, 7) for module in lora.layers}
    placed, unmatched = lora.match(shapes)
    assert not placed and "shape (64, 64), the transformer's is (7, 7)" in unmatched[0]


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({"a.weight": torch.zeros(2, 2)}, "is not a LoRA"),
        ({"a.lora_A.weight": torch.zeros(2, 2), "a.dora_scale": torch.zeros(2)}, "DoRA"),
        ({"a.lokr_w1": torch.zeros(2, 2)}, "LoKr"),
    ],
)
def test_other_files_are_named(tmp_path, tensors, words):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(OmniAlphaError, match=words):
        read_lora(tmp_path / "x.safetensors")


def test_nan_in_a_lora_is_refused(transformer, tmp_path):
    key = "transformer_blocks.0.attn.to_q.lora_A.weight"
    path = restyled(tmp_path, STYLES["bare"], **{key: torch.full((4, 64), float("nan"))})
    with pytest.raises(OmniAlphaError, match="NaN"):
        apply_lora(transformer, path)
