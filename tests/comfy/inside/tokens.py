"""Tells which tokens the nodes make of words, in ComfyUI's own Python, one question a line.

    python tokens.py COMFYUI BASE PACK

A question is JSON: {"instruct": {"instruction", "negative"}, "pictures": n}, {"task": {"task", "text", "instruction",
"negative"}}, or {"core": words} for a CLIP with ComfyUI's own tokenizer. So is the answer: token ids of each
conditioning with "picture" in a picture's place, or {"error": message} where the nodes refuse the words.
"""

import json
import sys

from run import MARK, start


class Enough(Exception):
    """Everything about the words is known: no need to sample."""


def main(comfyui: str, base: str, pack: str) -> None:
    start(comfyui, base, {"pack": pack})
    import inside
    import torch
    from comfy.sd import CLIP
    from comfy.text_encoders.qwen_image import QwenImageTokenizer

    # From here on a conditioning is the tokens that it would be made of.
    CLIP.encode_from_tokens_scheduled = as_conditioning
    inside.part("nodes.adapters.layer_vae").encode = lambda vae, layers: []
    model, clip, vae = inside.micro()
    core = clip.clone()
    core.tokenizer = QwenImageTokenizer()
    task = inside.part("nodes.task")
    task.sample = sampled = Sampler()

    def answer(question: dict) -> list:
        if "core" in question:
            return [inside.part("nodes.adapters.prompt").encode(core, question["core"], [])]
        if "instruct" in question:
            layers = {f"layer{i}": inside.picture(i, 32, 32) for i in range(question["pictures"])}
            (sequence,) = inside.run("OmniAlphaSequence", 1, 32, 32, "scale", layers=layers)
            return inside.run("OmniAlphaInstruct", clip, vae, sequence, **question["instruct"])[:2]
        words = {"seed": 0, "steps": 1, "guidance": 2.0, "sampler": "euler", "fit": "scale", **question["task"]}
        try:
            inside.run("OmniAlphaTask", model, clip, vae, **words)
        except Enough:
            return sampled.conditionings

    for line in sys.stdin:
        with torch.inference_mode():
            try:
                found = [ids(conditioning) for conditioning in answer(json.loads(line))]
            except inside.part("omnialpha.errors").OmniAlphaError as error:
                found = {"error": str(error)}
        print(MARK + json.dumps(found), flush=True)


def as_conditioning(clip, tokens: dict) -> list:
    return [[tokens, {}]]


class Sampler:
    """In place of sampling: keeps what would have been sampled from."""

    def __call__(self, *args, positive: list, negative: list, **others) -> None:
        self.conditionings = [positive, negative]
        raise Enough


def ids(conditioning: list) -> list:
    ((tokens, _),) = conditioning
    (row,) = tokens["qwen25_7b"]
    assert all(weight == 1 for _, weight in row)
    return [token if isinstance(token, int) else "picture" for token, _ in row]


if __name__ == "__main__":
    main(*sys.argv[1:])
