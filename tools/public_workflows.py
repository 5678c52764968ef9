"""The workflows for the public checkpoint as a table: which task, which files, and the words of their notes.

make_workflows.py lays them out. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HUB = "https://huggingface.co"

# file in models -> (folder, address). The addresses of Comfy-Org and lightx2v are those of ComfyUI's own templates.
FILES = {
    "qwen_image_edit_2509_fp8_e4m3fn.safetensors": (
        "diffusion_models",
        "Comfy-Org/Qwen-Image-Edit_ComfyUI/resolve/main/split_files/diffusion_models/"
        "qwen_image_edit_2509_fp8_e4m3fn.safetensors",
    ),
    "qwen_image_edit_2509_bf16.safetensors": (
        "diffusion_models",
        "Comfy-Org/Qwen-Image-Edit_ComfyUI/resolve/main/split_files/diffusion_models/"
        "qwen_image_edit_2509_bf16.safetensors",
    ),
    "Qwen-Image-Edit-2509-Q4_K_M.gguf": (
        "diffusion_models",
        "QuantStack/Qwen-Image-Edit-2509-GGUF/resolve/main/Qwen-Image-Edit-2509-Q4_K_M.gguf",
    ),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": (
        "text_encoders",
        "Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
    "omnialpha_lora.safetensors": ("loras", "Longin-Yu/OmniAlpha/resolve/main/lora/pytorch_lora_weights.safetensors"),
    "omnialpha_rgba_vae.safetensors": (
        "vae",
        "Longin-Yu/OmniAlpha/resolve/main/rgba_vae/diffusion_pytorch_model.safetensors",
    ),
    "Qwen-Image-Edit-2509-Lightning-8steps-V1.0-bf16.safetensors": (
        "loras",
        "lightx2v/Qwen-Image-Lightning/resolve/main/Qwen-Image-Edit-2509/"
        "Qwen-Image-Edit-2509-Lightning-8steps-V1.0-bf16.safetensors",
    ),
}
FP8, BF16, GGUF, TEXT_ENCODER, LORA, VAE, LIGHTNING = (
    "qwen_image_edit_2509_fp8_e4m3fn.safetensors",
    "qwen_image_edit_2509_bf16.safetensors",
    "Qwen-Image-Edit-2509-Q4_K_M.gguf",
    "qwen_2.5_vl_7b_fp8_scaled.safetensors",
    "omnialpha_lora.safetensors",
    "omnialpha_rgba_vae.safetensors",
    "Qwen-Image-Edit-2509-Lightning-8steps-V1.0-bf16.safetensors",
)


@dataclass(frozen=True)
class Public:
    """One workflow for the public checkpoint.

    Attributes:
        name: file name without omnialpha_public_ and .json.
        title: heading of its note.
        about: what it does, Markdown.
        sizes: how large the layers of one run are.
        task: task id.
        given: values of the task node that are not its defaults.
        picture, guide: example pictures, None where the task takes none.
        transformer: file of `FILES`.
        extra_loras: more files of `FILES`, put behind OmniAlpha's own.
        encoder_device: "cpu" keeps the text encoder off the graphics card.
        task_title, result: titles of the task node and of the preview.
    """

    name: str
    title: str
    about: str
    sizes: str
    task: str = "matting_auto"
    given: dict = field(default_factory=dict)
    picture: str | None = "omnialpha_frog.png"
    guide: str | None = None
    transformer: str = FP8
    extra_loras: tuple[str, ...] = ()
    encoder_device: str = "default"
    task_title: str = "Cut the object out"
    result: str = "The cut-out"

    @property
    def files(self) -> tuple[str, ...]:
        return (self.transformer, LORA, *self.extra_loras, TEXT_ENCODER, VAE)


TWO = "Matting has two layers, the picture and the cut-out, so each is worked on at about 724 x 724 pixels"
PUBLIC = (
    Public(
        "matting",
        "Matting with the public checkpoint",
        "Cuts the main object out of a picture, soft edges and all.",
        TWO,
    ),
    Public(
        "matting_text",
        "Matting by words, with the public checkpoint",
        "Cuts out the object that **text** names. Say what tells it from the others: *the frog on the left*.",
        TWO,
        task="matting_text",
        given={"text": "the frog"},
        task_title="Cut out what text says",
    ),
    Public(
        "generation",
        "An object from words, with the public checkpoint",
        "Draws one object on a transparent background. **text** says which.",
        "There is one layer, so it has the whole megapixel: 1024 x 1024. **width** and **height** change that",
        task="text_to_rgba",
        given={"text": "a red hot-air balloon", "width": 1024, "height": 1024},
        picture=None,
        task_title="Draw the object",
        result="The object",
    ),
    Public(
        "removal",
        "Removal with the public checkpoint",
        "Takes away the object under the mask and paints what was behind it.\n\nThe mask is white where the object is. "
        "To paint it yourself: right-click **Your picture**, *Open in MaskEditor*, paint the object, save, and connect "
        "the picture's own MASK to **guide**.",
        "There are three layers, the picture, the mask and the background, so each is worked on at about 591 x 591 "
        "pixels",
        task="removal_mask",
        picture="omnialpha_gift.png",
        guide="omnialpha_gift_mask.png",
        task_title="Remove the object",
        result="The empty background",
    ),
    Public(
        "decomposition",
        "Decomposition with the public checkpoint",
        "Takes a picture apart into **background and object**, two layers, the background first.",
        "There are three layers, the picture, the background and the object, so each is worked on at about 591 x 591 "
        "pixels",
        task="decomposition_auto",
        picture="omnialpha_lotus.png",
        task_title="Take the picture apart",
        result="Background and object",
    ),
    Public(
        "matting_bf16",
        "Matting with the public checkpoint, bf16",
        "The transformer as it was trained, without rounding to 8 bits. It is twice as large as the fp8 file "
        "(40.9 GB), so ComfyUI keeps most of it in main memory on most cards.",
        TWO,
        transformer=BF16,
    ),
    Public(
        "matting_gguf",
        "Matting with the public checkpoint, GGUF",
        "The transformer in a smaller file, about 4.5 bits per number.\n\n"
        "**This workflow needs another pack**: *ComfyUI-GGUF* by city96. In ComfyUI Manager choose *Install Missing "
        "Custom Nodes*, or clone `https://github.com/city96/ComfyUI-GGUF` into `custom_nodes`. ComfyUI offers no "
        "download for files that end in `.gguf`; fetch that one yourself.",
        TWO,
        transformer=GGUF,
    ),
    Public(
        "matting_low_vram",
        "Matting with the public checkpoint, little graphics memory",
        "Asks for less of the card, at some cost in time and detail:\n\n"
        "- **Qwen2.5-VL** is set to `cpu`: the text encoder never enters the card\n"
        "- **width** and **height** are 512, half as many pixels as the checkpoint would choose. Give them your "
        "picture's proportions, in steps of 32\n"
        "- **guidance** is 1: one run of the model per step instead of two\n\n"
        "ComfyUI keeps in main memory what of the transformer does not fit, so have 32 GB of that. Still too much? See "
        "*omnialpha_public_matting_gguf*.",
        "Here both layers are worked on at 512 x 512 pixels",
        given={"width": 512, "height": 512, "guidance": 1.0},
        encoder_device="cpu",
    ),
    Public(
        "matting_8_steps_experimental",
        "Experimental: 8 steps with the public checkpoint",
        "**Experimental.** A second LoRA, *Qwen-Image-Edit-2509-Lightning*, lets Qwen-Image-Edit draw in 8 steps "
        "instead of 50. It was trained for that model, not for OmniAlpha: expect edges and transparency to suffer, and "
        "compare with *omnialpha_public_matting* before you rely on it.\n\n**steps** is 8 and **guidance** 1; the "
        "two belong to that LoRA. Does it go wrong? Lower its strength, raise **steps**.",
        TWO,
        given={"steps": 8, "guidance": 1.0},
        extra_loras=(LIGHTNING,),
    ),
)  # fmt: skip


def models(*names: str) -> dict:
    """What a loader says about its files, so that ComfyUI can offer their download."""
    known = [(name, *FILES[name]) for name in names]
    return {"models": [{"name": n, "url": f"{HUB}/{path}", "directory": folder} for n, folder, path in known]}


def public_note(row: Public) -> str:
    """The note of a workflow for the public checkpoint."""
    lines = []
    for name in row.files:
        folder, path = FILES[name]
        own_name = path.rsplit("/", 1)[1]
        renamed = "" if own_name == name else f"`{own_name}`, saved as "
        lines.append(f"| {renamed}`{name}` | `{folder}` | [{path.split('/resolve/')[0]}]({HUB}/{path}) |")
    return "\n".join(
        [
            f"# {row.title}",
            row.about,
            "",
            "### Files",
            "Nothing is fetched behind your back. ComfyUI lists what is missing and offers it, or you put it there "
            "yourself. The two files of OmniAlpha have names that say little: **save them under the names given "
            "here**. Then press *R*.",
            "",
            "| file | folder in ComfyUI/models | from |",
            "|---|---|---|",
            *lines,
            "",
            "The authors of OmniAlpha state **no licence** for their two files: ask them before you use them for work.",
            "",
            "### Trained on",
            "`matting_auto`, `matting_text`, `text_to_rgba`, `removal_mask`, `decomposition_auto`. The other tasks "
            "run, with a note that little is to be expected.",
            "",
            "### Sizes",
            f"{row.sizes}, and brought back to your picture's size." if row.picture else f"{row.sizes}.",
            "",
            "### Memory",
            "See *How much memory* in the pack's README.",
        ]
    )
