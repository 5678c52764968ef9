"""From a checkpoint folder to its models, checked before they are built.

Everything here is decided by what the files hold, not by what their configs claim: names and shapes are compared with
headers before a single tensor is read, so that the wrong model is refused in a second and in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..checkpoint.folder import Checkpoint
from ..checkpoint.foreign_code import refuse_code
from ..checkpoint.lora import read_lora
from ..checkpoint.vae_keys import LATENT_CHANNELS
from ..checkpoint.weights import TensorInfo, load_tensors
from ..errors import OmniAlphaError
from .rope import install_rope

_TRANSFORMER = "QwenImageTransformer2DModel"
# Later models of the family that this method was not made for: they tell layers apart by means of their own.
_FOREIGN = {"zero_cond_t": "Qwen-Image-Edit-2511", "use_layer3d_rope": "Qwen-Image-Layered"}


def check_parts(checkpoint: Checkpoint) -> None:
    """Makes sure that transformer, text encoder and LoRA are of the right kind and belong together; loads no weights.

    Raises:
        OmniAlphaError: another architecture, tensors missing or of another shape, or widths that do not fit.
    """
    config = transformer_config(checkpoint)
    problems = compare(shapes_of(build_transformer(config)), checkpoint.headers("transformer"))
    if problems:
        raise OmniAlphaError(
            f"The weights in {checkpoint.folder / 'transformer'} are not what its config.json describes: "
            f"{summary(problems)}. Fetch the folder again."
        )
    width, wanted = text_width(checkpoint), config.get("joint_attention_dim", 3584)
    if width != wanted:
        raise OmniAlphaError(
            f"{checkpoint.folder}: the text encoder gives {width} values per token, the transformer reads {wanted}. "
            f"They do not belong to the same checkpoint."
        )
    if checkpoint.lora is not None:
        read_lora(checkpoint.lora).place(checkpoint.shapes)


def transformer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The transformer's config, known to be one that this method works with.

    Raises:
        OmniAlphaError: another class, another number of latent channels, or a later variant of the family.
    """
    path, config = checkpoint.folder / "transformer" / "config.json", checkpoint.config("transformer")
    name = config.get("_class_name", _TRANSFORMER)
    if name != _TRANSFORMER:
        raise OmniAlphaError(f"{path} describes a {name}, expected a {_TRANSFORMER} (Qwen-Image-Edit-2509 or micro).")
    for key, model in _FOREIGN.items():
        if config.get(key):
            raise OmniAlphaError(f"{path} sets {key}: this is {model}, expected Qwen-Image-Edit-2509 or micro.")
    channels = (config.get("in_channels", 64), config.get("out_channels") or 16, config.get("patch_size", 2))
    if channels != (4 * LATENT_CHANNELS, LATENT_CHANNELS, 2):
        raise OmniAlphaError(
            f"{path} has (in_channels, out_channels, patch_size) = {channels}, expected (64, 16, 2). "
            f"This is not a Qwen-Image transformer."
        )
    return config


def build_transformer(config: dict[str, Any]) -> Any:
    """A QwenImageTransformer2DModel without values (on the meta device).

    Raises:
        OmniAlphaError: a config that describes no model.
    """
    from diffusers import QwenImageTransformer2DModel

    known = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        with torch.device("meta"):
            return QwenImageTransformer2DModel.from_config(known)
    except Exception as error:  # whatever a damaged config makes the constructor raise
        raise OmniAlphaError(f"The transformer's config.json cannot be used: {error}") from error


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def compare(expected: dict[str, tuple[int, ...]], found: Mapping[str, TensorInfo | torch.Tensor]) -> list[str]:
    """Differences between the tensors a model needs and those that files hold, in words."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [
        f"{name} is {list(found[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    return problems + [f"{name} is not part of the model" for name in found if name not in expected]


def summary(problems: list[str], limit: int = 3) -> str:
    """The first few of many problems, and how many more there are."""
    more = f", and {len(problems) - limit} more" if len(problems) > limit else ""
    return "; ".join(problems[:limit]) + more


def text_width(checkpoint: Checkpoint) -> int:
    """Values per token that a checkpoint's text encoder gives.

    Raises:
        OmniAlphaError: not a Qwen2.5-VL.
    """
    path, config = checkpoint.folder / "text_encoder" / "config.json", checkpoint.config("text_encoder")
    if config.get("model_type") != "qwen2_5_vl":
        raise OmniAlphaError(f"{path} describes a {config.get('model_type')!r}, expected a 'qwen2_5_vl' text encoder.")
    inner = config.get("text_config")  # configs of transformers before 4.52 are flat
    width = (inner if isinstance(inner, dict) else config).get("hidden_size")
    if not isinstance(width, int):
        raise OmniAlphaError(f"{path} has no hidden_size. Fetch the file again.")
    return width


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The dtype to compute in: bfloat16 where the transformer is stored in it, float32 otherwise.

    float16 is a storage format only; Qwen-Image's activations leave its range.
    """
    dtypes = {info.dtype for info in checkpoint.headers("transformer").values()}
    if any(dtype.startswith("F8") for dtype in dtypes):
        raise OmniAlphaError(
            f"{checkpoint.folder / 'transformer'} is stored in float8, which only ComfyUI computes with. "
            f"Use the bfloat16 files."
        )
    return torch.bfloat16 if "BF16" in dtypes else torch.float32


def load_transformer(checkpoint: Checkpoint, dtype: torch.dtype, axis: str = "bil") -> Any:
    """QwenImageTransformer2DModel of a checkpoint with layer positions, in evaluation mode.

    Args:
        checkpoint: `check_parts` has passed it.
        dtype: what to compute in; weights are converted one by one.
        axis: see `rope.layer_positions`.
    """
    # The stock positions are built on the meta device too and hold nothing; installing ours replaces them.
    model = install_rope(build_transformer(transformer_config(checkpoint)), axis)
    weights = {name: tensor.to(dtype) for name, tensor in load_tensors(checkpoint.folder / "transformer").items()}
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False).eval()


def load_text_encoder(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Qwen2_5_VLForConditionalGeneration of a checkpoint, in evaluation mode.

    Raises:
        OmniAlphaError: weights are missing or do not fit, or the settings ask for code.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    path = checkpoint.folder / "text_encoder"
    refuse_code(path)
    checkpoint.headers("text_encoder")  # a cut-off file is named as one
    try:
        config = Qwen2_5_VLConfig.from_dict(_for_any_transformers(checkpoint.config("text_encoder")))
        loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, report = loaded
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise OmniAlphaError(f"The text encoder in {path} cannot be loaded: {str(error).strip()}") from error
    # The head that turns states into words is never used here, and often tied to the embeddings rather than stored.
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith("lm_head."))
    if lacking:
        raise OmniAlphaError(
            f"The text encoder in {path} lacks {len(lacking)} tensors ({summary(lacking)}). "
            f"Its weights are not those of its config.json; fetch the folder again."
        )
    return model.requires_grad_(False).eval()


def _for_any_transformers(config: dict[str, Any]) -> dict[str, Any]:
    """A text encoder's config with the rope constants where the installed transformers looks for them.

    Release 5 writes `rope_parameters`; release 4 reads `rope_scaling` and `rope_theta`, and 5 reads these as well.
    """
    import transformers

    inner = config.get("text_config")
    rope = inner.get("rope_parameters") if isinstance(inner, dict) else None
    if int(transformers.__version__.split(".")[0]) >= 5 or not isinstance(inner, dict) or not isinstance(rope, dict):
        return config
    spelled = {"rope_scaling": {"type": "default", **rope}, "rope_theta": rope.get("rope_theta", 1e6)}
    return {**config, "text_config": {**inner, **spelled}}


def load_tokenizer(checkpoint: Checkpoint):
    """The tokenizer of a checkpoint. Raises OmniAlphaError, see `read_tokenizer`."""
    from .text import read_tokenizer

    return read_tokenizer(checkpoint.folder / "tokenizer")


def load_scheduler(checkpoint: Checkpoint):
    """diffusers' scheduler of a checkpoint, or Qwen-Image's: carried along for saving, sampling goes by `Schedule`."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = checkpoint.scheduler or {
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
        "time_shift_type": "exponential",
    }
    return FlowMatchEulerDiscreteScheduler.from_config(dict(config))
