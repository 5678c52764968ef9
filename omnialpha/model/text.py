"""From an instruction and its pictures to the embeddings the transformer reads.

Qwen2.5-VL sees the edit template with one "Picture k: <vision>" per input layer, also for text-only tasks. The tokens
of the template up to and including "<|im_start|>user\\n" are dropped from its last hidden state; with Qwen's tokenizer
these are 64. Pictures are the layers over white, at their own size, not shrunk to 384 x 384.

Patches, grids and 3D positions are made here rather than by the transformers processor: releases differ in
what they return (positions of pictures are lost when one is paired with the wrong caller), some need torchvision, and
the numbers are a page of plain tensor code (Qwen2-VL, arXiv 2409.12191, section 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange, repeat

from ..checkpoint.foreign_code import open_tokenizer
from ..errors import OmniAlphaError
from ..layers.compositing import over_colour

if TYPE_CHECKING:
    from PIL.Image import Image

START, IMAGE = "<|im_start|>", "<|image_pad|>"
PICTURE = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"
# Tokens that mean something else than words, and what. In an artist's text some would ask for a picture that is not
# there, and one would end the text in ComfyUI and not here.
_PICTURE = "stands for a picture"
RESERVED = {
    "<|image_pad|>": _PICTURE,
    "<|video_pad|>": _PICTURE,
    "<|vision_start|>": _PICTURE,
    "<|vision_end|>": _PICTURE,
    "<|endoftext|>": "ends a text",
}

SIDE_MULTIPLE = 28  # 14-pixel patches, merged 2 x 2
SIDE_MINIMUM = 56

# CLIP's normalisation, which Qwen2.5-VL's vision tower was trained with.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@lru_cache(maxsize=1)
def edit_template() -> str:
    """The edit template with `{}` where the prompt goes, worded as the installed diffusers has it."""
    from diffusers import QwenImageEditPlusPipeline

    nothing: list[Any] = [None] * 6  # the wording is set in the constructor, and no component takes part in that
    return QwenImageEditPlusPipeline(*nothing).prompt_template_encode


def read_tokenizer(folder: Path) -> Any:
    """Qwen2.5-VL's tokenizer in a folder.

    Raises:
        OmniAlphaError: unreadable files, code beside them, or a tokenizer without the template's special tokens.
    """
    tokenizer = open_tokenizer(folder)
    lacking = [token for token in (START, IMAGE) if token not in tokenizer.get_vocab()]
    if lacking:
        raise OmniAlphaError(
            f"The tokenizer in {folder} does not know {' and '.join(lacking)}; it is not Qwen2.5-VL's."
        )
    return tokenizer


def check_words(instruction: str) -> str:
    """`instruction` itself, if it can be shown to the encoder.

    Raises:
        OmniAlphaError: it holds one of the tokens that are no words, or half a character.
    """
    for token, meaning in RESERVED.items():
        if token in instruction:
            raise OmniAlphaError(f"The text contains {token}, which {meaning}. Remove it from the text.")
    if half := re.search("[\ud800-\udfff]", instruction):
        raise OmniAlphaError(
            f"The text holds one half (U+{ord(half[0]):04X}) of a character that is written in two. It was cut in the "
            f"middle, or is not UTF-8; type it again."
        )
    return instruction


def check_length(tokens: int, limit: int | None) -> None:
    """Makes sure that text and pictures fit into the text encoder.

    Raises:
        OmniAlphaError: more tokens than it reads.
    """
    if limit and tokens > limit:
        raise OmniAlphaError(
            f"Text and pictures make {tokens} tokens, this checkpoint's text encoder reads {limit}. "
            f"Shorten the text or use a smaller size."
        )


def full_prompt(instruction: str, pictures: int, template: str | None = None) -> str:
    """The text the encoder sees, one `<|image_pad|>` per picture.

    Args:
        instruction: what the model is told; empty is fine (the empty negative prompt).
        pictures: number of input layers.
        template: another wording, with `{}` where the prompt goes.

    Raises:
        OmniAlphaError: see `check_words`.
    """
    prompt = "".join(PICTURE.format(k + 1) for k in range(pictures)) + check_words(instruction)
    # Not str.format: an artist may type braces.
    return (template or edit_template()).replace("{}", prompt, 1)


def condition_image(layer: torch.Tensor) -> Image:
    """A layer as the encoder sees it.

    Args:
        layer: [4, H, W] in [0, 1], straight alpha.

    Returns:
        RGB picture over white, 8 bit, scaled (PIL bicubic) so that each side is the nearest multiple of 28, at least
        56: at these sizes neither transformers nor ComfyUI scale it again, so both see the same pixels.
    """
    from PIL import Image

    pixels = (over_colour(layer, (1.0, 1.0, 1.0)).clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(np.ascontiguousarray(rearrange(pixels, "c h w -> h w c").cpu().numpy()))
    width, height = (max(SIDE_MINIMUM, round(side / SIDE_MULTIPLE) * SIDE_MULTIPLE) for side in picture.size)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BICUBIC)


def user_start(ids: Sequence[int], im_start_id: int, user_ids: Sequence[int] = ()) -> int:
    """How many leading tokens belong to the template and are dropped: everything up to and including
    "<|im_start|>user\\n".

    Args:
        ids: token ids of the full prompt.
        im_start_id: the id of "<|im_start|>".
        user_ids: the ids of "user\\n"; they are counted where they follow.

    Returns:
        64 with Qwen's tokenizer and template.

    Raises:
        OmniAlphaError: the template has no second "<|im_start|>": the tokenizer does not know the token.
    """
    starts = [i for i, token in enumerate(ids) if token == im_start_id]
    if len(starts) < 2:
        raise OmniAlphaError(
            f"The tokenizer finds {len(starts)} {START} in the edit template, expected 2 or more. "
            f"It is not a Qwen2.5-VL tokenizer; use the one that came with the checkpoint."
        )
    start = starts[1] + 1
    return start + len(user_ids) if list(ids[start : start + len(user_ids)]) == list(user_ids) else start


def vision_patches(picture: Image, patch: int = 14, merge: int = 2, frames: int = 2) -> torch.Tensor:
    """A picture as the vision tower's patches.

    Args:
        picture: RGB, each side a multiple of `patch * merge`.
        frames: the tower's temporal patch; a still is repeated.

    Returns:
        [rows * columns, 3 * frames * patch * patch] float32, CLIP-normalised; the `merge` x `merge` patches that
        become one token lie next to each other.
    """
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
    pixels = (pixels - torch.tensor(_MEAN)) / torch.tensor(_STD)
    pattern = "(row down y) (column right x) c -> (row column down right) c y x"
    patches = rearrange(pixels, pattern, down=merge, right=merge, y=patch, x=patch)
    return repeat(patches, "patch c y x -> patch (c frame y x)", frame=frames)


def unfold_pictures(ids: Sequence[int], grids: Sequence[tuple[int, int]], image_id: int) -> list[int]:
    """Token ids with each picture's one token repeated as often as the picture has tokens (rows x columns)."""
    counts = iter([rows * columns for rows, columns in grids])
    return [copy for token in ids for copy in [token] * (next(counts) if token == image_id else 1)]


def vision_positions(ids: Sequence[int], grids: Sequence[tuple[int, int]], image_id: int) -> torch.Tensor:
    """Multimodal rope positions of a prompt with its pictures (Qwen2-VL, M-RoPE).

    Args:
        ids: token ids with the image token once per picture token.
        grids: (rows, columns) of tokens per picture.

    Returns:
        [3, 1, len(ids)] int64: time, row, column. Text counts up on all three; a picture spreads over rows and
        columns, and the text after it goes on behind the longer of its sides.
    """
    pieces, here, i, remaining = [], 0, 0, list(grids)
    while i < len(ids):
        if ids[i] == image_id:
            rows, columns = remaining.pop(0)
            row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            pieces.append(torch.stack([torch.zeros_like(row), row, column]).reshape(3, -1) + here)
            here, i = here + max(rows, columns), i + rows * columns
        else:
            pieces.append(torch.full((3, 1), here))
            here, i = here + 1, i + 1
    return torch.cat(pieces, dim=1).unsqueeze(1)


@torch.no_grad()
def encode_ids(text_encoder, ids: Sequence[int], pictures: Sequence[Image]) -> torch.Tensor:
    """The encoder's last hidden state (after its final norm) for token ids with one image token per picture.

    Args:
        text_encoder: transformers' Qwen2_5_VLForConditionalGeneration.
        ids: token ids, one image token per picture.
        pictures: as `condition_image` makes them.

    Returns:
        [1, L, D] float32 on the encoder's device, every picture unfolded to its tokens, template included.

    Raises:
        OmniAlphaError: more or fewer image tokens than pictures, or a prompt beyond the encoder's length.
    """
    vision, image_id = text_encoder.config.vision_config, text_encoder.config.image_token_id
    patch, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    if (slots := list(ids).count(image_id)) != len(pictures):
        raise OmniAlphaError(
            f"The prompt has room for {slots} pictures, {len(pictures)} were given. The tokenizer and the text encoder "
            f"disagree on the image token (id {image_id}): they do not belong to the same checkpoint."
        )
    grids = [(picture.height // (patch * merge), picture.width // (patch * merge)) for picture in pictures]
    unfolded = unfold_pictures(ids, grids, image_id)
    check_length(len(unfolded), getattr(text_encoder.config.get_text_config(), "max_position_embeddings", None))

    device = text_encoder.device
    inputs = {"input_ids": torch.tensor([unfolded]), "position_ids": vision_positions(unfolded, grids, image_id)}
    if pictures:
        inputs["pixel_values"] = torch.cat([vision_patches(p, patch, merge, frames) for p in pictures])
        inputs["pixel_values"] = inputs["pixel_values"].to(text_encoder.dtype)
        inputs["image_grid_thw"] = torch.tensor([(1, rows * merge, columns * merge) for rows, columns in grids])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    # The outer model, so that offloading hooks run; logits over the vocabulary are large and of no use, so one row.
    options = {"use_cache": False, "output_hidden_states": True, "logits_to_keep": 1}
    output = text_encoder(**{key: value.to(device) for key, value in inputs.items()}, **options)
    return output.hidden_states[-1].float()


def encode_prompt(text_encoder, tokenizer, instruction: str, layers: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """Embeddings of an instruction about some layers.

    Args:
        text_encoder: Qwen2_5_VLForConditionalGeneration.
        tokenizer: Qwen2 tokenizer that belongs to it.
        instruction: what the model is told; may be empty.
        layers: the input layers, [4, H, W] in [0, 1] each, in sequence order.

    Returns:
        [1, L, D] float32, template dropped.

    Raises:
        OmniAlphaError: see `full_prompt`, `user_start` and `encode_ids`.
    """
    ids = tokenizer(full_prompt(instruction, len(layers)), add_special_tokens=False)["input_ids"]
    user_ids = tokenizer("user\n", add_special_tokens=False)["input_ids"]
    start = user_start(ids, tokenizer.convert_tokens_to_ids(START), user_ids)
    return encode_ids(text_encoder, ids, [condition_image(layer) for layer in layers])[:, start:]
