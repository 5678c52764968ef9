"""Sample sheets while training: the same held-out records every time, so that sheets compare."""

from __future__ import annotations

import numpy as np
import torch

from ..data.examples import derive, tasks_of
from ..data.records import read_records
from ..files.sheet import Sheet
from ..pipeline import OmniAlphaPipeline
from ..tasks import TASKS
from .config import TransformerConfig

# One task of each family, and two that show what a guide is worth.
SHOWN = ("text_to_rgba", "fg_to_full", "matting_auto", "matting_trimap", "removal_mask", "decomposition_auto")


@torch.no_grad()
def draw_sheet(parts, vae, config: TransformerConfig, step: int) -> Sheet:
    """Inputs, what the model answers, and the truth, for a few tasks it is being trained on.

    Args:
        parts: `transformer.Parts`, with the weights to show.
        vae: the RGBA VAE.
        config: its `sheet_data` is the data set.
        step: for the title.
    """
    assert config.sheet_data, "sheets are drawn where `sheet_data` is given"
    training = parts.transformer.training
    pipeline = OmniAlphaPipeline(
        transformer=parts.transformer.eval(),
        vae=vae.to(parts.transformer.device),
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler=None,
        settings=parts.settings,
    )
    pipeline.set_progress_bar_config(disable=True)
    records = read_records(config.sheet_data).records
    sheet = Sheet(f"step {step}", ["input", "guide", "answer", "answer", "truth", "truth"])
    for number, task in enumerate(task for task in SHOWN if config.weights.get(task, 0) > 0):
        able = [record for record in records if task in tasks_of(record)]
        if not able:
            continue
        example = derive(able[number % len(able)], task, np.random.default_rng(number), caption_rate=0)
        row = TASKS[task]
        answer = pipeline(
            task=task,
            images=example.inputs[:1],
            guide=example.inputs[1] if row.guide_role else None,
            text=example.text,
            seed=number,
            pixels="redraw",
        )
        columns = [*(*example.inputs, None, None)[:2], *(*answer, None)[:2], *(*example.targets, None)[:2]]
        sheet.add(task, [example.text], columns)
    vae.to("cpu")
    parts.transformer.train(training)
    return sheet
