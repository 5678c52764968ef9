"""Micro's parts, built from nothing: a tokenizer, a Qwen2.5-VL text encoder and a Qwen-Image transformer.

They are the public checkpoint's classes with small numbers, so the library and ComfyUI run both with the same code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files.writing import write_json, write_over
from ..model.text import edit_template, full_prompt
from ..tasks import TASKS
from .config import Architecture

# Qwen2.5's special tokens that a prompt can hold, in Qwen's order; here they take the last ids.
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def build_tokenizer(names: Iterable[str], vocabulary: int = 2048):
    """A byte-level BPE that knows the template, the instructions and the captions.

    Args:
        names: captions that training may see.
        vocabulary: tokens in all.

    Returns:
        transformers' Qwen2Tokenizer.
    """
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(vocab={}, merges=[])
    corpus = [edit_template().replace("{}", " ")] * 50
    corpus += [full_prompt(task.instruction.replace("{text}", " "), len(task.inputs)) for task in TASKS.values()] * 50
    corpus += list(names)
    for token in SPECIAL:
        corpus = [text.replace(token, " ") for text in corpus]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend = tokenizer.backend_tokenizer
    backend.train_from_iterator(corpus, trainer)
    learned = json.loads(backend.to_str())["model"]
    merges: Any = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned["merges"]]
    return Qwen2Tokenizer(
        vocab=learned["vocab"], merges=merges, extra_special_tokens=list(SPECIAL[1:]), model_max_length=4096
    )


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Write the tokenizer for every reader, in the spelling that transformers 4 and 5 both understand.

    Readers differ: some take tokenizer.json, slow tokenizers want vocab.json and merges.txt with
    `added_tokens_decoder`, and the `extra_special_tokens` list that transformers 5 writes stops transformers 4.
    """
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    write_over(folder / "vocab.json", json.dumps(model["vocab"], ensure_ascii=False))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    write_over(folder / "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "unk_token": None,
        "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[0],
        "model_max_length": 4096,
        "additional_special_tokens": list(SPECIAL[1:]),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(tokenizer.convert_tokens_to_ids(token)): {"content": token, **flags} for token in SPECIAL
        },
    }
    write_json(folder / "tokenizer_config.json", config)


def build_text_encoder(tokenizer, sizes: Architecture = Architecture()):  # noqa: B008 - never changed
    """Qwen2.5-VL at the given sizes, random."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    pairs = sizes.text_width // sizes.text_heads // 2  # rope turns pairs of values: shares for time, row and column
    sections = [pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8]
    rope = {"rope_type": "default", "type": "default", "mrope_section": sections, "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": sizes.text_width,
            "intermediate_size": 2 * sizes.text_width,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_heads,
            "num_key_value_heads": max(1, sizes.text_heads // 2),
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": sizes.vision_layers,
            "hidden_size": sizes.vision_width,
            "num_heads": 4,
            "patch_size": 14,
            "intermediate_size": 2 * sizes.vision_width,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [sizes.vision_layers - 1],
            "out_hidden_size": sizes.text_width,
            "in_channels": 3,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def build_transformer(sizes: Architecture = Architecture()):  # noqa: B008 - never changed
    """Qwen-Image's transformer at the given sizes, random.

    Modulations and the output start at zero (adaLN-zero, Peebles & Xie 2023): every block begins as the identity.
    """
    from diffusers import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=sizes.blocks,
        attention_head_dim=sizes.head_dim,
        num_attention_heads=sizes.heads,
        joint_attention_dim=sizes.text_width,
        axes_dims_rope=sizes.rope_axes,
    )
    blocks: Any = model.transformer_blocks
    zero = [part[1] for block in blocks for part in (block.img_mod, block.txt_mod)]
    for linear in (*zero, model.norm_out.linear, model.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return model


def as_half(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state as float16, for the disk. Raises ValueError where float16 cannot hold a value."""
    state = {name: tensor.detach().half().contiguous() for name, tensor in state.items()}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds values beyond float16")
    return state
