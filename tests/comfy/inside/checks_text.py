"""CLIP: embeddings, window order, template, any size."""

import json
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import comfy.text_encoders.llama as llama
import comfy.text_encoders.qwen_image as qwen_image
import torch
from comfy.text_encoders import hunyuan_image, kandinsky5
from comfy.text_encoders.qwen_vl import Qwen2VLVisionTransformer
from inside import fails, golden, job, micro, part, picture, worst
from safetensors import safe_open
from safetensors.torch import load_file

TOLERANCE = 2e-5
IMAGE_ID = 151655


def golden_clip():
    """The tiny encoder of the fixtures with ComfyUI's own Qwen tokenizer. Its embedding is stored as single rows."""
    import comfy.sd

    text_encoder = part("nodes.adapters.text_encoder")
    tensors = {text_encoder.comfy_key(k): t for k, t in load_file(golden("text/encoder/te_tiny.safetensors")).items()}
    rows = {key: tensors.pop(key) for key in list(tensors) if key.startswith("embed_rows")}
    config = json.loads(golden("text/encoder/config.json").read_text())
    embedding = torch.zeros(config["text_config"]["vocab_size"], config["text_config"]["hidden_size"])
    embedding[rows["embed_rows.ids"]] = rows["embed_rows.weight"].float()
    tensors = {
        "model.embed_tokens.weight": embedding,
        **{k: t.float() for k, t in tensors.items() if k != "lm_head.weight"},
    }
    folder = Path(qwen_image.__file__).with_name("qwen25_tokenizer")
    target = text_encoder.clip_target(config, text_encoder.read_vocabulary(folder))
    return comfy.sd.CLIP(target, state_dict=[tensors], model_options={"dtype": torch.float32})


def cases():
    with safe_open(golden("text/embeddings.safetensors"), "pt") as handle:
        metadata = handle.metadata()
    tensors = load_file(golden("text/embeddings.safetensors"))
    for name in sorted({key.split(".")[0] for key in tensors}):
        yield name, {k.split(".", 1)[1]: t for k, t in tensors.items() if k.split(".")[0] == name}, metadata


def check_embeddings_match_the_reference():
    clip = part("nodes.adapters.window_order").in_picture_order(golden_clip())
    return {name: _same(clip.encode_from_tokens(tokens), wanted) for name, tokens, wanted in prompts()}


def check_the_cores_own_prefix_is_dropped_alike():
    """CLIPs of ComfyUI's loaders look for the end of the template themselves."""
    clip = part("nodes.adapters.window_order").in_picture_order(golden_clip())
    clip.load_model()
    encode = qwen_image.QwenImageTEModel.encode_token_weights
    return {name: _same(encode(clip.cond_stage_model, tokens)[0], wanted) for name, tokens, wanted in prompts()}


def check_the_cores_own_tokenizer_gives_the_same_ids():
    theirs, ours = qwen_image.QwenImageTokenizer(), golden_clip().tokenizer
    template = part("nodes.adapters.prompt").edit_template(SimpleNamespace(tokenizer=theirs))
    for instruction, pictures in (("a {red} (cup:1.5), <|im_start|>", 0), ("matting", 2)):
        words = part("omnialpha.model.text").full_prompt(instruction, pictures, template)
        images = [picture(seed) for seed in range(pictures)]
        found, wanted = (tokenizer.tokenize_with_weights(words, images=images) for tokenizer in (theirs, ours))
        plain = [
            [token if isinstance(token, int) else "image" for token, _ in row["qwen25_7b"][0]]
            for row in (found, wanted)
        ]
        assert plain[0] == plain[1] and plain[0].count("image") == pictures


def prompts():
    """(name, ComfyUI's tokens, embeddings) of every fixture."""
    for name, case, _ in cases():
        pixels = [case[key][0].movedim(-1, 0) / 255 for key in sorted(case) if key.startswith("img")]
        layers = [torch.cat([rgb, torch.ones_like(rgb[:1])]) for rgb in pixels]
        images = [part("nodes.adapters.prompt")._picture(layer) for layer in layers]
        row = []
        for token in case["ids"].flatten().tolist():
            image = token == IMAGE_ID and images
            row.append(({"type": "image", "data": images.pop(0), "original_type": "image"} if image else token, 1.0))
        yield name, {"qwen25_7b": [row]}, case["embeds"].reshape(1, -1, case["embeds"].shape[-1])


def _same(found, wanted) -> float:
    error = worst(found, wanted)
    assert error < TOLERANCE, error
    return error


def check_our_prompt_is_the_references_token_for_token():
    clip = golden_clip()
    prompt, text = part("nodes.adapters.prompt"), part("omnialpha.model.text")
    found = 0
    for name, case, metadata in cases():
        about = json.loads(metadata[name]) if name in metadata else {}
        instruction = about.get("prompt")
        if instruction is None:
            continue
        pictures = sum(key.startswith("img") for key in case)
        words = text.full_prompt(instruction, pictures, prompt.edit_template(clip))
        ids = [token for token, _ in clip.tokenize(words)["qwen25_7b"][0]]
        assert ids == case["ids"].flatten().tolist(), name
        found += 1
    return {"prompts": found}


def check_the_window_order_is_judged_by_what_this_comfyui_does():
    """Without our patch the embeddings are the reference's where ComfyUI sorts windows back, and only there."""
    clip = golden_clip()
    errors = {name: worst(clip.encode_from_tokens(tokens), wanted) for name, tokens, wanted in prompts()}
    scrambled = part("nodes.adapters.window_order").scrambles(Qwen2VLVisionTransformer)
    assert max(errors.values()) > 1e-3 if scrambled else max(errors.values()) < TOLERANCE, (scrambled, errors)
    return {"scrambled": scrambled, **errors}


def check_both_kinds_of_towers_are_told_apart():
    """This ComfyUI's, and one that does the contrary."""
    order = part("nodes.adapters.window_order")
    scrambled = order.scrambles(Qwen2VLVisionTransformer)

    class Contrary(Qwen2VLVisionTransformer):
        def forward(self, pixel_values, image_grid_thw=None):
            if scrambled:
                return order.InOrder(self, super().forward)(pixel_values, image_grid_thw)
            return super().forward(pixel_values, image_grid_thw)[self.get_window_index(image_grid_thw)[0]]

    assert order.scrambles(Contrary) is not scrambled


def check_an_unknown_tower_is_taken_to_be_right():
    assert not part("nodes.adapters.window_order").scrambles(torch.nn.Identity)


def check_the_clip_that_came_in_stays_as_it_was():
    _, clip, _ = micro()
    image = picture(3, 168, 168)
    tokens = clip.tokenize(
        "<|im_start|>system\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>x", images=[image]
    )
    before = clip.encode_from_tokens(tokens)
    order = part("nodes.adapters.window_order")
    with mock.patch.object(order, "scrambles", return_value=False):
        assert order.in_picture_order(clip) is clip
    with mock.patch.object(order, "scrambles", return_value=True):  # also where this ComfyUI does not
        fixed = order.in_picture_order(clip)
        assert fixed is not clip and order.in_picture_order(fixed) is fixed
    after = fixed.encode_from_tokens(tokens)
    assert worst(after, before) > 1e-4, "a picture of several windows must come out otherwise"
    assert torch.equal(clip.encode_from_tokens(tokens), before)
    assert torch.equal(fixed.encode_from_tokens(tokens), after)


def check_an_ordinary_clip_call_works_on_micro():
    """Other nodes call CLIP without pictures and without a full prompt."""
    _, clip, _ = micro()
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("a red balloon"))
    assert conditioning[0][0].shape[-1] == 128 and torch.isfinite(conditioning[0][0]).all()


def check_braces_and_reserved_words():
    _, clip, _ = micro()
    encode = part("nodes.adapters.prompt").encode
    assert encode(clip, "a {red} {} balloon", [])[0][0].shape[1] > 4
    fails(lambda: encode(clip, "a <|image_pad|>", []), "<|image_pad|>")


def check_wrong_clips_are_named():
    class Stranger:
        cond_stage_model = torch.nn.Linear(1, 1)
        tokenizer = None

    fails(lambda: part("nodes.adapters.prompt").check_clip(Stranger()), "Linear", "Qwen2.5-VL", "qwen_image")


def check_clips_derived_from_qwen_images_are_named():
    """HunyuanImage's and Kandinsky's hold the same Qwen2.5-VL, but other layers of it."""
    for source in (hunyuan_image, kandinsky5):
        model = source.te()(device="meta", dtype=torch.float32)
        clip = SimpleNamespace(cond_stage_model=model, tokenizer=micro()[1].tokenizer)
        fails(lambda clip=clip: part("nodes.adapters.prompt").check_clip(clip), source.__name__, "Qwen2.5-VL")


def check_every_public_key_has_its_place():
    """The 7B encoder on the meta device against the names transformers publishes."""
    from comfy.ops import disable_weight_init

    encoder = llama.Qwen25_7BVLI({}, torch.bfloat16, torch.device("meta"), disable_weight_init)
    wanted = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    rename = part("nodes.adapters.text_encoder").comfy_key
    published = {
        rename(key): tuple(shape) for key, shape in job["full_text_encoder"].items() if key != "lm_head.weight"
    }
    assert published == wanted, sorted(set(published) ^ set(wanted))[:5]
    return {"tensors": len(wanted)}
