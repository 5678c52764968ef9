"""A CLIP from a Qwen2.5-VL folder in transformers' layout, of any size and with any tokenizer.

It is a standard `comfy.sd.CLIP`: ComfyUI's own Qwen classes, with the sizes and token ids of the folder in place of the
7B model's constants. Their keys are the ones transformers saves, apart from two prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from comfy import sd1_clip
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import llama, qwen_image, qwen_vl
from comfy.utils import calculate_parameters
from torch import nn

from ...omnialpha.checkpoint.weights import load_tensors
from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.json_files import read_json
from ...omnialpha.model.text import IMAGE, START, read_tokenizer, user_start
from .precision import in_precision
from .twin import check_tensors

ENCODER = "qwen25_7b"  # the attribute under which ComfyUI keeps the encoder, whatever its size

_RENAMES = ((re.compile(r"^model\.language_model\."), "model."), (re.compile(r"^model\.visual\."), "visual."))


def load_text_encoder(folder: Path, tokenizer_folder: Path, **options: bool) -> CLIP:
    """A CLIP from a `text_encoder` and a `tokenizer` folder. It can load itself again, for copies on other devices.

    Args:
        folder: config.json and safetensors.
        tokenizer_folder: the tokenizer's files.
        options: more for ComfyUI's CLIP, such as `disable_dynamic` where it has that.

    Raises:
        OmniAlphaError: tensors missing or of another shape, a config without the sizes, or a tokenizer without Qwen's
            special tokens.
    """
    tensors = {comfy_key(key): tensor for key, tensor in load_tensors(folder).items() if key != "lm_head.weight"}
    tensors, dtype = in_precision(tensors)
    config = read_json(folder / "config.json")
    try:
        target = clip_target(config, read_vocabulary(tokenizer_folder))
        twin = encoder_class(config)({}, torch.float32, torch.device("meta"), nn)
    except KeyError as absent:
        raise OmniAlphaError(f"{folder}/config.json has no {absent}; expected the config of a Qwen2.5-VL.") from absent
    check_tensors(tensors, twin, folder, "the Qwen2.5-VL of its config.json", strict=False)
    clip = CLIP(
        target,
        parameters=calculate_parameters(tensors),
        state_dict=[tensors],
        model_options={"dtype": dtype} if dtype else {},
        **options,
    )
    clip.patcher.cached_patcher_init = (_load_patcher, (folder, tokenizer_folder))
    return clip


def _load_patcher(folder: Path, tokenizer_folder: Path, **options: bool) -> ModelPatcher:
    return load_text_encoder(folder, tokenizer_folder, **options).patcher


def comfy_key(key: str) -> str:
    """transformers' name of a tensor -> ComfyUI's."""
    for pattern, prefix in _RENAMES:
        key = pattern.sub(prefix, key)
    return key


@dataclass(frozen=True)
class Vocabulary:
    """A transformers tokenizer and the ids in it that mean something to the model.

    Attributes:
        tokenizer: turns text into ids.
        start: id of "<|im_start|>".
        image: id of "<|image_pad|>", the place of a picture.
        user: ids of "user" and a line break, the end of what is dropped.
    """

    tokenizer: Any
    start: int
    image: int
    user: tuple[int, ...]

    def from_pretrained(self, *_: Any, **__: Any) -> Any:
        """The tokenizer, where ComfyUI expects a tokenizer class."""
        return self.tokenizer


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in a tokenizer folder.

    Raises:
        OmniAlphaError: not a tokenizer folder, one that asks for code, or one without Qwen2.5-VL's special tokens.
    """
    tokenizer = read_tokenizer(folder)
    vocabulary = tokenizer.get_vocab()
    user = tokenizer("user\n", add_special_tokens=False)["input_ids"]
    return Vocabulary(tokenizer, vocabulary[START], vocabulary[IMAGE], tuple(user))


def encoder_class(config: Mapping) -> type[nn.Module]:
    """ComfyUI's Qwen2.5-VL with the sizes of a config.

    ComfyUI makes the instance itself and passes no sizes along, so they are bound into the class.

    Raises:
        KeyError: a size that the config does not state.
    """
    text = config.get("text_config", config)
    language, vision = _language_config(config, text), _vision_sizes(config["vision_config"], text["hidden_size"])
    full_attention = list(config["vision_config"]["fullatt_block_indexes"])

    class Encoder(llama.Qwen25_7BVLI):
        def __init__(self, config_dict, dtype, device, operations):
            nn.Module.__init__(self)
            self.num_layers, self.dtype = language.num_hidden_layers, dtype
            self.model = llama.Llama2_(language, device=device, dtype=dtype, ops=operations)
            self.visual = qwen_vl.Qwen2VLVisionTransformer(**vision, device=device, dtype=dtype, ops=operations)
            self.visual.fullatt_block_indexes = full_attention

    return Encoder


def clip_target(config: Mapping, vocabulary: Vocabulary) -> ClipTarget:
    """The classes of a CLIP for a Qwen2.5-VL config.

    Raises:
        KeyError: a size that the config does not state.
    """
    encoder, text = encoder_class(config), config.get("text_config", config)
    pad = text.get("pad_token_id")
    pad = pad if isinstance(pad, int) else -1  # no such id: nothing is padding

    class Embedder(qwen_image.Qwen25_7BVLIModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            sd1_clip.SDClipModel.__init__(
                self,
                device=device,
                dtype=dtype,
                model_class=encoder,
                textmodel_json_config={},
                special_tokens={"pad": pad},
                layer_norm_hidden_state=False,
                enable_attention_masks=True,
                return_attention_masks=True,
                model_options=model_options or {},
            )

    class Model(qwen_image.QwenImageTEModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            sd1_clip.SD1ClipModel.__init__(
                self, device=device, dtype=dtype, name=ENCODER, clip_model=Embedder, model_options=model_options or {}
            )

        def encode_token_weights(self, token_weight_pairs, template_end=-1):
            if template_end == -1:
                ids = [
                    int(token) if isinstance(token, Integral) else -1 for token, *_ in token_weight_pairs[ENCODER][0]
                ]
                template_end = user_start(ids, vocabulary.start, vocabulary.user)
            return super().encode_token_weights(token_weight_pairs, template_end)

    class Words(sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(
                "",
                tokenizer_class=vocabulary,
                embedding_directory=embedding_directory,
                embedding_key=ENCODER,
                embedding_size=text["hidden_size"],
                has_start_token=False,
                has_end_token=False,
                pad_with_end=False,
                pad_to_max_length=False,
                max_length=99999999,
                min_length=1,
                pad_token=pad,
                tokenizer_data=tokenizer_data or {},
            )

    class Tokenizer(qwen_image.QwenImageTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            data = {**(tokenizer_data or {}), f"{ENCODER}_tokenizer_class": Words}
            super().__init__(embedding_directory=embedding_directory, tokenizer_data=data)

        def tokenize_with_weights(self, text, return_word_ids=False, llama_template=None, images=(), **kwargs):
            if not text.startswith(START):
                default = self.llama_template_images if images else self.llama_template
                text = (llama_template or default).replace("{}", text, 1)
            kwargs.pop("prevent_empty_text", None)
            tokens = sd1_clip.SD1Tokenizer.tokenize_with_weights(
                self, text, return_word_ids, disable_weights=True, **kwargs
            )
            remaining = list(images)
            for row in tokens[ENCODER]:
                for i, (token, *rest) in enumerate(row):
                    if token == vocabulary.image and remaining:
                        row[i] = ({"type": "image", "data": remaining.pop(0), "original_type": "image"}, *rest)
            return tokens

    return ClipTarget(Tokenizer, Model)


def _language_config(config: Mapping, text: Mapping) -> Any:
    """ComfyUI's config of the language model."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or config.get("rope_scaling") or {}
    sizes = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
    )
    language = llama.Qwen25_7BVLI_Config(**{name: text[name] for name in sizes})
    language.rope_theta = text.get("rope_theta") or rope.get("rope_theta", language.rope_theta)
    # These two are class attributes there, constants of the 7B model.
    language.head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    language.rope_dims = list(rope["mrope_section"])
    return language


def _vision_sizes(vision: Mapping, hidden_size: int) -> dict[str, int]:
    """Arguments of ComfyUI's vision tower."""
    return {
        "hidden_size": vision["hidden_size"],
        "output_hidden_size": vision.get("out_hidden_size", hidden_size),
        "intermediate_size": vision["intermediate_size"],
        "num_heads": vision["num_heads"],
        "num_layers": vision["depth"],
        "patch_size": vision["patch_size"],
        "temporal_patch_size": vision["temporal_patch_size"],
        "spatial_merge_size": vision["spatial_merge_size"],
        "window_size": vision["window_size"],
    }
