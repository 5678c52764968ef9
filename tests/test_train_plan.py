"""What a run is said to need, against what it needs."""

import pytest
import torch

from omnialpha.cli.main import main
from omnialpha.model.rope import install_rope
from omnialpha.train.architecture import build_transformer
from omnialpha.train.config import Architecture, LoraConfig, TransformerConfig
from omnialpha.train.estimate import KEPT, estimate_text, full_size_shapes, lora_parameters, make_estimate


def kept_for_backward(model, tokens: int, text: int, width: int) -> int:
    """Bytes of activations that autograd holds after one forward pass."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    side = int(tokens**0.5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(
            hidden_states=torch.randn(1, tokens, 64),
            encoder_hidden_states=torch.randn(1, text, width),
            timestep=torch.tensor([0.5]),
            img_shapes=[[(1, side, side)]],
            return_dict=False,
        )[0]
    weights = {param.untyped_storage().data_ptr() for param in model.parameters()}
    total = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert out.requires_grad
    return total


def test_activations_are_about_what_is_measured():
    sizes = Architecture(blocks=4, heads=4, head_dim=64, rope_axes=(16, 24, 24), text_width=128)
    model = install_rope(build_transformer(sizes))
    measured = kept_for_backward(model, 256, 64, 128)
    planned = 4 * KEPT * 256 * (256 + 64) * 4
    assert 0.6 < planned / measured < 1.6, (planned, measured)


def test_full_size_is_the_published_one():
    shapes = full_size_shapes()
    config = TransformerConfig({"matting_auto": 1}, 1, cache="x", checkpoint="x", precision="bf16", lora=LoraConfig(64))
    plan = make_estimate(shapes, 3072, 60, config, pixels=1024**2, weight_bytes=2)
    assert plan.parameters == 20_430_401_088
    assert plan.bytes["weights"] == pytest.approx(2 * plan.parameters + 4 * plan.trained)
    assert plan.trained == lora_parameters(shapes, LoraConfig(64))
    assert "memory" in estimate_text(plan)


def test_lora_parameters_are_counted_as_peft_makes_them():
    from omnialpha.train.lora import add_lora

    model = build_transformer(Architecture(blocks=2)).requires_grad_(False)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    add_lora(model, LoraConfig(8))
    assert lora_parameters(shapes, LoraConfig(8)) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_command(capsys):
    assert main(["train", "plan", "configs/full/lora.yaml"]) == 0
    said = capsys.readouterr().out
    assert said.count("memory") == 4 and "20,430.4 M" in said
