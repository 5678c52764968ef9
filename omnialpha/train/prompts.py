"""Batches of prompts with pictures through the text encoder, with gradients.

The library encodes one prompt at a time; training needs many that differ in words but share the number and size of
their pictures. The numbers are the same (a test compares the two).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import MethodType

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from ..files.writing import write_tensors
from ..model.text import START, full_prompt, unfold_pictures, user_start, vision_patches, vision_positions


class PromptEncoder:
    """Encodes batches; remembers the tokens of each wording.

    Args:
        text_encoder: Qwen2_5_VLForConditionalGeneration.
        tokenizer: its Qwen2 tokenizer.
    """

    def __init__(self, text_encoder, tokenizer):
        self.model, self.tokenizer = text_encoder.model, tokenizer
        self.image_id = text_encoder.config.image_token_id
        self.vision = text_encoder.config.vision_config
        # The kernel of this convolution is as large as its step, so it is a matrix product. On a CPU the product's
        # backward pass is many times faster, and the convolution's took a fifth of a training step of micro.
        embed = self.model.visual.patch_embed
        embed.forward = MethodType(_embed_patches, embed)
        self.tokens: dict[tuple[str, int], list[int]] = {}

    def __call__(self, instructions: Sequence[str], seen: Sequence[torch.Tensor]):
        """Embeddings of a batch.

        Args:
            instructions: one per sample.
            seen: per input layer, what the tower sees of it: uint8 [batch, H, W, 3], sides multiples of 28.

        Returns:
            ([batch, L, D] with the template dropped and shorter prompts padded at the end,
             bool [batch, L], True for real tokens, or None where no prompt is padded).
        """
        side = self.vision.patch_size * self.vision.spatial_merge_size
        grids = [(pictures.shape[1] // side, pictures.shape[2] // side) for pictures in seen]
        rows = [unfold_pictures(self._ids(text, len(seen)), grids, self.image_id) for text in instructions]
        user = self.tokenizer("user\n", add_special_tokens=False)["input_ids"]
        start = user_start(rows[0], self.tokenizer.convert_tokens_to_ids(START), user)
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        positions = [vision_positions(row, grids, self.image_id) for row in rows]
        positions = torch.cat([F.pad(row, (0, length - row.shape[-1])) for row in positions], dim=1)
        embeds = self.model.get_input_embeddings()(ids)
        if seen:
            looks = self._look(seen, grids).to(embeds.dtype)  # autocast leaves them in another precision
            embeds = embeds.masked_scatter((ids == self.image_id)[..., None], looks)
        # Attention is causal: padding at the end is seen by no real token, and the template at the start, which is the
        # same for all, sees none of what follows. So it goes through once, and the samples attend to what it left.
        template = self.model.language_model(
            inputs_embeds=embeds[:1, :start], position_ids=positions[:, :1, :start], use_cache=True
        ).past_key_values
        template.batch_repeat_interleave(len(rows))
        hidden = self.model.language_model(
            inputs_embeds=embeds[:, start:],
            position_ids=positions[:, :, start:],
            past_key_values=template,
            use_cache=True,
        )
        real = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]).bool()[:, start:]
        return hidden.last_hidden_state, None if real.all() else real

    def _ids(self, instruction: str, pictures: int) -> list[int]:
        key = (instruction, pictures)
        if key not in self.tokens:
            self.tokens[key] = self.tokenizer(full_prompt(*key), add_special_tokens=False)["input_ids"]
        return self.tokens[key]

    def _look(self, seen: Sequence[torch.Tensor], grids: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Picture tokens in the order of the prompts: sample by sample, picture by picture. [tokens, D]."""
        patch, merge, frames = self.vision.patch_size, self.vision.spatial_merge_size, self.vision.temporal_patch_size
        parts = []
        for pictures, (rows, columns) in zip(seen, grids, strict=True):
            patches = torch.cat([vision_patches(Image.fromarray(p.numpy()), patch, merge, frames) for p in pictures])
            grid = torch.tensor([[1, rows * merge, columns * merge]]).expand(len(pictures), -1)
            seen_tokens = self.model.visual(patches, grid_thw=grid)
            tokens = getattr(seen_tokens, "pooler_output", seen_tokens)  # transformers 4 gives the tensor itself
            parts.append(tokens.view(len(pictures), rows * columns, -1))
        return torch.cat(parts, dim=1).flatten(0, 1)


def _embed_patches(self, patches: torch.Tensor) -> torch.Tensor:
    """Forward of transformers' Qwen2_5_VisionPatchEmbed: [patches, channels x frames x side x side] -> [patches, D]."""
    return F.linear(patches.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


class CachedPrompts:
    """A frozen text encoder's embeddings, computed once and kept on disk: the encoder runs in the first epoch only.

    Args:
        encoder: what computes them.
        folder: where they are kept, one safetensors file each.
        most: how many stay in memory.
    """

    def __init__(self, encoder: PromptEncoder, folder: Path | str, most: int = 1024):
        self.encoder, self.folder, self.most = encoder, Path(folder), most
        self.memory: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, instructions: Sequence[str], seen: Sequence[torch.Tensor]):
        """As `PromptEncoder.__call__`."""
        rows = [self._one(text, [layer[i : i + 1] for layer in seen]) for i, text in enumerate(instructions)]
        length = max(map(len, rows))
        padded = torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in rows])
        real = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]).bool()
        return padded, None if real.all() else real

    @torch.no_grad()
    def _one(self, instruction: str, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        digest = hashlib.sha256(instruction.encode())
        for layer in seen:
            digest.update(str(tuple(layer.shape)).encode() + layer.numpy().tobytes())
        key = digest.hexdigest()[:32]
        if key not in self.memory:
            self.memory[key] = self._from_disk(key, instruction, seen)
            if len(self.memory) > self.most:
                self.memory.popitem(last=False)
        self.memory.move_to_end(key)
        return self.memory[key]

    def _from_disk(self, key: str, instruction: str, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        path = self.folder / f"{key}.safetensors"
        if path.is_file():
            return load_file(path)["embedding"]
        embedding = self.encoder([instruction], seen)[0][0].detach().cpu().contiguous()
        write_tensors(path, {"embedding": embedding})
        return embedding
