"""OmniAlpha Task: any of the 21 tasks in one node."""

from functools import partial

import comfy.samplers
from comfy_api.v0_0_2 import io

from ..omnialpha.checkpoint.settings import Settings
from ..omnialpha.errors import OmniAlphaError
from ..omnialpha.layers.compositing import flatten
from ..omnialpha.layers.looking import Made
from ..omnialpha.layers.sequence import FittedSequence
from ..omnialpha.model.sampling import sigmas
from ..omnialpha.request import Plan, Request
from ..omnialpha.tasks import LOOKS, PIXELS, TASKS, Task, by_family, get_task
from .adapters import layer_vae
from .adapters.conditioning import condition
from .adapters.images import check_same_size, one_picture, one_plane, to_image, transparency
from .adapters.inputs import (
    check_connected,
    chosen,
    explicit_size,
    fit_input,
    look_input,
    mask_output,
    pixels_input,
    size_inputs,
    snap_input,
    steps_input,
)
from .adapters.note import doubts_shown
from .adapters.preview import previewer
from .adapters.sampling import RunProgress, empty_latent, ensure_patched, finishing_device, sample
from .adapters.settings import settings_of
from .adapters.wires import CATEGORY

_OPEN = object()  # an input that nothing is connected to


class OmniAlphaTask(io.ComfyNode):
    """All steps at once, from pictures to layers; the other nodes are these steps one by one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="OmniAlphaTask",
            display_name="OmniAlpha Task",
            category=CATEGORY,
            description=(
                "Generates, completes, mattes, removes or decomposes RGBA layers. Choose a task and connect what it "
                "needs; the rest is ignored."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Patched by itself where you have not done it."),
                io.Clip.Input("clip", tooltip="Qwen2.5-VL."),
                io.Vae.Input("vae", tooltip="RGBA VAE."),
                io.Combo.Input(
                    "task",
                    options=list(TASKS),
                    default="matting_auto",
                    tooltip="\n".join(
                        f"{family.upper()}\n" + "\n".join(f"{row.id}: {row.help}" for row in rows)
                        for family, rows in by_family().items()
                    ),
                    extra_dict={"tasks": {row.id: _for_the_page(row) for row in TASKS.values()}},
                ),
                io.Image.Input("image", optional=True, tooltip="The picture, for all tasks that start from one."),
                io.Mask.Input(
                    "guide",
                    optional=True,
                    display_name="guide (1 = object)",
                    tooltip="For tasks by trimap, mask or coarse mask: 1 is object, 0 background, 0.5 unknown. As "
                    "drawn in the mask editor, and as large as the picture.",
                ),
                io.String.Input("text", multiline=True, default="", tooltip="What a layer shows, or which object."),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    tooltip="What the model is told. Empty: the task's own wording. {text} stands for the text above.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="Where the noise starts. The same seed gives the same layers again.",
                ),
                steps_input(),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="0: what the checkpoint asks for. 1: none, twice as fast.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=comfy.samplers.SAMPLER_NAMES,
                    default="euler",
                    tooltip="How steps are taken. euler is what the model was trained and measured with.",
                ),
                fit_input(),
                io.String.Input(
                    "negative", multiline=True, default="", optional=True, tooltip="What guidance steers away from."
                ),
                *size_inputs(optional=True),
                snap_input(),
                pixels_input(),
                look_input(),
            ],
            outputs=[
                io.Image.Output("layers", display_name="layers", tooltip="RGBA, straight alpha, back to front."),
                mask_output(),
                io.Image.Output("composite", display_name="composite", tooltip="The layers over each other, RGBA."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, task, text="", instruction="", image=_OPEN, guide=_OPEN):
        # A connected input arrives as None: what it brings is known when the graph runs.
        if task is None:
            return True
        try:
            row = get_task(task)
            check_connected(row, image is not _OPEN, guide is not _OPEN)
            if None not in (text, instruction):
                row.fill(text, instruction)
        except OmniAlphaError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        task,
        text,
        instruction,
        seed,
        steps,
        guidance,
        sampler,
        fit,
        image=None,
        guide=None,
        negative="",
        width=0,
        height=0,
        snap_alpha=False,
        pixels=PIXELS[0],
        look=LOOKS[0],
    ) -> io.NodeOutput:
        chosen(sampler, comfy.samplers.SAMPLER_NAMES, "sampler")
        model = ensure_patched(model)
        settings = settings_of(model, clip.patcher, vae.patcher)
        plan = _plan(
            settings,
            image,
            guide,
            cls.hidden.unique_id if cls.hidden else None,
            task=task,
            text=text,
            instruction=instruction,
            seed=seed,
            steps=steps or None,
            guidance=guidance or None,
            fit=fit,
            negative=negative,
            size=explicit_size(width, height),
            snap=snap_alpha,
            pixels=pixels,
            look=look,
        )
        layers = run(plan, settings, model=model, clip=clip, vae=vae, sampler=sampler)
        return io.NodeOutput(to_image(layers, plan.names), transparency(layers), to_image([flatten(layers)]))


def _for_the_page(row: Task) -> dict:
    """What web/task.js shows of a task: which sockets and widgets it uses, and the words the model is told."""
    uses = {"image": row.image_role, "guide": row.guide_role, "text": row.text, "pixels": row.keeps, "look": row.looks}
    return uses | {"instruction": row.instruction}


def run(plan: Plan, settings: Settings, *, model, clip, vae, sampler: str) -> list:
    """Layers [4, H, W] of a plan, in the frame of its first picture."""
    progress = RunProgress(plan.steps * plan.passes)

    def make(fitted: FittedSequence) -> Made:
        """One pass of the model over what was fitted."""
        guided = plan.guidance > 1
        prompts = [plan.instruction, plan.negative] if guided else [plan.instruction]
        conditionings = condition(clip, vae, fitted, prompts)
        latent = empty_latent(fitted.targets, fitted.size)["samples"]
        samples = sample(
            model,
            latent,
            sigmas(plan.steps, latent[0, 0].numel() // 4, settings.schedule),
            positive=conditionings[0],
            negative=conditionings[-1],
            scale=plan.guidance if guided else 1.0,
            seed=plan.seed,
            sampler=sampler,
            progress=progress,
            preview=previewer(model, vae),
        )
        round_trip = partial(layer_vae.round_trip, vae, fitted.inputs[0]) if fitted.inputs else None
        return Made(layer_vae.decode(vae, samples), round_trip)

    return plan.carry_out(make, progress.finishing, finishing_device())


def _plan(settings: Settings, image, guide, node_id=None, *, task: str, **asked) -> Plan:
    """The library's plan for the node's inputs; what may disappoint is said on the node."""
    row = get_task(task)
    check_connected(row, image is not None, guide is not None)
    images = [one_picture(image, "The picture")] if row.image_role else []
    plane = None
    if row.guide_role:
        plane = check_same_size(one_plane(guide, "The guide"), images[0], "The guide")
    with doubts_shown(node_id, "OmniAlpha Task"):
        return Request(task=task, images=images, guide=plane, **asked).plan(settings)
