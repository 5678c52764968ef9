"""An instruction and its pictures as CONDITIONING."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from comfy.sd import CLIP
from comfy.text_encoders.qwen_image import Qwen25_7BVLIModel, QwenImageTokenizer
from torch import Tensor

from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.model.text import IMAGE, PICTURE, SIDE_MULTIPLE, check_length, condition_image, full_prompt
from .text_encoder import ENCODER
from .window_order import in_picture_order


def check_clip(clip: CLIP) -> None:
    """Makes sure that a CLIP is Qwen2.5-VL as Qwen-Image uses it.

    HunyuanImage's and Kandinsky's are derived from it, but take the text from another layer: the encoder has a say too.

    Raises:
        OmniAlphaError: it is something else; the message says what.
    """
    encoder = getattr(clip.cond_stage_model, ENCODER, None)
    if not (isinstance(encoder, Qwen25_7BVLIModel) and isinstance(clip.tokenizer, QwenImageTokenizer)):
        found = type(clip.cond_stage_model)  # several are called alike
        raise OmniAlphaError(
            f"This CLIP is a {found.__name__} of {found.__module__}; OmniAlpha needs Qwen2.5-VL as Qwen-Image has it. "
            f"Load it with 'Load CLIP' and type 'qwen_image', or use 'OmniAlpha Load Checkpoint'."
        )


def encode(clip: CLIP, instruction: str, layers: Sequence[Tensor]) -> list:
    """CONDITIONING of an instruction about some layers.

    Args:
        clip: Qwen2.5-VL from any loader.
        instruction: what the model is told; may be empty.
        layers: the input layers [4, H, W] at their fitted size, in sequence order.

    Raises:
        OmniAlphaError: another text encoder, or reserved tokens in the instruction.
    """
    check_clip(clip)
    prompt = full_prompt(instruction, len(layers), edit_template(clip))
    tokens = tokenize(clip, prompt, [_picture(layer) for layer in layers])
    return in_picture_order(clip).encode_from_tokens_scheduled(tokens)


def tokenize(clip: CLIP, prompt: str, pictures: Sequence[Tensor]) -> dict:
    """ComfyUI's tokens of a prompt: its words as they are, as the library reads them, and its pictures.

    ComfyUI's own way would take the backslash out of `\\(` and fetch a file for `embedding:name`.

    Args:
        clip: Qwen2.5-VL.
        prompt: with one `<|image_pad|>` per picture.
        pictures: IMAGE [1, H, W, 3] each, sides multiples of 28.

    Raises:
        OmniAlphaError: more tokens than the text encoder reads.
    """
    tokenizer = getattr(clip.tokenizer, ENCODER).tokenizer
    ids, image = tokenizer(prompt, add_special_tokens=False)["input_ids"], tokenizer.convert_tokens_to_ids(IMAGE)
    sizes = [picture.shape[1] // SIDE_MULTIPLE * (picture.shape[2] // SIDE_MULTIPLE) for picture in pictures]
    check_length(len(ids) - len(pictures) + sum(sizes), tokenizer.model_max_length)
    embeds = iter([{"type": "image", "data": picture, "original_type": "image"} for picture in pictures])
    return {ENCODER: [[(next(embeds) if token == image else token, 1.0) for token in ids]]}


def edit_template(clip: CLIP) -> str:
    """The edit template with `{}` where the prompt goes, worded as the installed ComfyUI has it.

    ComfyUI's has the place of one picture built in; ours come with the prompt.
    """
    return clip.tokenizer.llama_template_images.replace(PICTURE.split(": ")[1], "")


def _picture(layer: Tensor) -> Tensor:
    """[4, H, W] -> IMAGE [1, H', W', 3] as the encoder sees it, a size that it does not scale again."""
    pixels = np.asarray(condition_image(layer), dtype=np.float32)
    return torch.from_numpy(pixels / 255)[None]
