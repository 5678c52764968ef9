"""The method from end to end on diffusers' and transformers' models.

    pipeline = OmniAlphaPipeline.from_pretrained("micro")
    background, foreground = pipeline("decomposition_auto", images=["photo.png"], seed=7)

Text and input layers are encoded once; the target layers start as noise and are denoised together, as one token
sequence `[text | targets | inputs]` (paper section 3.2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from einops import rearrange

from .checkpoint.folder import Checkpoint
from .checkpoint.lora import apply_lora
from .checkpoint.settings import FILE_NAME, Settings
from .checkpoint.weights import MICRO
from .checks import check_finite
from .errors import Cancelled, OmniAlphaError, OmniAlphaWarning
from .files.writing import write_json
from .layers.looking import Made
from .layers.sequence import FittedSequence
from .model.loading import (
    check_parts,
    load_scheduler,
    load_text_encoder,
    load_tokenizer,
    load_transformer,
    stored_dtype,
    summary,
)
from .model.sampling import denoise, guide, initial_noise, model_time, sigmas
from .model.single_frame import SCALE
from .model.text import encode_prompt
from .model.tokens import pack, patchify, unpack
from .model.vae import decode_layers, encode_layers, load_vae
from .progress import Progress
from .request import Plan, Request

Preview = Callable[[], list[torch.Tensor]]
Callback = Callable[[int, int, Preview], object]


class OmniAlphaPipeline(DiffusionPipeline):
    """Generates, mattes, removes, completes and decomposes RGBA layers.

    Args:
        transformer: QwenImageTransformer2DModel with `rope.install_rope` applied.
        vae: 4-channel AutoencoderKLQwenImage, from `vae.load_vae`.
        text_encoder: Qwen2_5_VLForConditionalGeneration.
        tokenizer: the tokenizer that belongs to it.
        scheduler: diffusers' scheduler, kept so that a saved checkpoint is complete.
        settings: what the checkpoint says about itself.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(self, transformer, vae, text_encoder, tokenizer, scheduler, settings: Settings | None = None):
        super().__init__()
        self.register_modules(
            transformer=transformer, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler
        )
        self.settings = settings or Settings()

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path | Checkpoint = MICRO,
        *,
        vae: str | Path | None = None,
        lora: str | Path | None = None,
        lora_scale: float = 1.0,
        dtype: torch.dtype | None = None,
        axis: str = "bil",
    ) -> OmniAlphaPipeline:
        """Loads a checkpoint from this machine; nothing is ever downloaded.

        Args:
            checkpoint: "micro" (built in), or a folder in diffusers layout, see `Checkpoint`. For the public checkpoint
                that is the Qwen-Image-Edit-2509 folder, with the authors' rgba_vae and lora folders in it or given
                as `vae` and `lora`.
            vae: RGBA VAE file or folder, in either key layout, in place of the folder's own.
            lora: LoRA file or folder for the transformer, in place of the folder's own; it is added to the weights.
            lora_scale: strength of the LoRA.
            dtype: what transformer and text encoder compute in; by default bfloat16 where the transformer is stored so,
                float32 otherwise. The VAE always computes in float32.
            axis: "bil", or "2d" for the ablation without a layer axis.

        Raises:
            OmniAlphaError: something is missing, damaged, or of another architecture. All of that is found out before
                the large weights are read.
        """
        checkpoint = Checkpoint.of(checkpoint, vae=vae, lora=lora).check()
        settings = checkpoint.settings
        check_parts(checkpoint)
        tokenizer = load_tokenizer(checkpoint)
        autoencoder = load_vae(checkpoint.vae)
        dtype = dtype or stored_dtype(checkpoint)
        transformer = load_transformer(checkpoint, dtype, axis)
        if checkpoint.lora is not None:
            _report(checkpoint.lora, apply_lora(transformer, checkpoint.lora, lora_scale))
        return cls(
            transformer=transformer,
            vae=autoencoder,
            text_encoder=load_text_encoder(checkpoint, dtype),
            tokenizer=tokenizer,
            scheduler=load_scheduler(checkpoint),
            settings=settings,
        )

    def save_pretrained(self, folder: str | Path, **options) -> None:
        """Writes the checkpoint as a folder in diffusers layout with its `omnialpha.json`; a LoRA is in the weights.

        Args:
            folder: created if it is not there.
            options: see diffusers' `DiffusionPipeline.save_pretrained`, such as `max_shard_size`.

        Raises:
            OmniAlphaError: the folder cannot be written.
        """
        try:
            safe: dict[str, Any] = {**options, "safe_serialization": True}
            super().save_pretrained(folder, **safe)
            write_json(Path(folder) / FILE_NAME, self.settings.to_json())
        except OSError as error:
            raise OmniAlphaError(f"Cannot save to {folder}: {error.strerror or error}.") from error

    def __call__(
        self,
        task: str | None = None,
        instruction: str | None = None,
        *,
        callback: Callback | None = None,
        progress: Progress | None = None,
        **asked,
    ) -> list[torch.Tensor]:
        """Runs a task, or a free instruction.

        Args:
            task, instruction: see `Request`, which lists everything that can be asked for.
            callback: called after each step with (steps done, steps, preview), where steps are those of all passes that
                there may be; `preview()` decodes the layers as the model sees them so far, in the window that it looks
                at. Returning False, or raising, stops the run.
            progress: told how far the finishing has come, see `progress.Progress`; returning False stops it.
            asked: the other fields of `Request`: `images`, `guide`, `text`, `seed`, `steps`, `guidance`, `size`, ...

        Returns:
            float32 layers [4, H, W] in [0, 1] on the CPU, back to front, in the frame of the first image (at the
            working size where there is none).

        Raises:
            OmniAlphaError: a request that cannot be run, or a model that gives NaN.
            Cancelled: the callback or `progress` returned False.
        """
        return self.run(Request(task=task, instruction=instruction, **asked).plan(self.settings), callback, progress)

    @torch.no_grad()
    def run(self, plan: Plan, callback: Callback | None = None, progress: Progress | None = None) -> list[torch.Tensor]:
        """`__call__` for a request that is already planned."""
        done, total = 0, plan.steps * plan.passes

        def after_step(preview: Preview) -> None:
            nonlocal done
            done += 1
            if callback is not None and callback(done, total, preview) is False:
                raise Cancelled(f"Stopped after step {done} of {total}.")

        gpu = self._execution_device if self._execution_device.type == "cuda" else None
        try:
            return plan.carry_out(lambda fitted: self._make(plan, fitted, after_step), progress, gpu)
        finally:
            self.maybe_free_model_hooks()

    def _make(self, plan: Plan, fitted: FittedSequence, after_step: Callable[[Preview], None]) -> Made:
        """One pass of the model over what was fitted."""
        device = self._execution_device
        prompts = [plan.instruction] + ([plan.negative] if plan.guidance > 1 else [])
        contexts = [self._context(prompt, fitted.inputs, device) for prompt in prompts]

        self._wake(self.vae)
        inputs = [latent[None].to(device) for latent in encode_layers(self.vae, fitted.inputs)]
        h, w = (side // SCALE for side in fitted.size)
        noise = initial_noise(plan.seed, fitted.targets, h, w).to(device)
        tokens, shapes = pack(noise, inputs)
        count = fitted.targets * patchify(noise[:, :, 0]).shape[1]
        x, clean = tokens[:, :count], tokens[:, count:]

        def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            predictions = [self._predict(x, clean, sigma, context, shapes) for context in contexts]
            return guide(predictions[0], predictions[-1], plan.guidance)

        def decode(latents) -> list[torch.Tensor]:
            self._wake(self.vae)
            return decode_layers(self.vae, latents)

        def targets(x: torch.Tensor) -> list[torch.Tensor]:
            return decode(rearrange(unpack(x, fitted.targets, h, w)[0], "c m h w -> m c h w"))

        levels = sigmas(plan.steps, count, self.settings.schedule).to(device)
        x = denoise(
            velocity, x, levels, lambda step, steps, estimate: after_step(lambda: fitted.restore(targets(estimate)))
        )
        layers = [check_finite(layer, "A decoded layer") for layer in targets(x)]
        return Made(layers, (lambda: decode(inputs[0])[0]) if inputs else None)

    def _context(self, prompt: str, layers: list[torch.Tensor], device) -> torch.Tensor:
        """Embeddings [1, L, D] of a prompt with its pictures, in the transformer's dtype."""
        context = encode_prompt(self.text_encoder, self.tokenizer, prompt, layers)
        return check_finite(context, "The text encoder's output").to(device, self.transformer.dtype)

    def _predict(self, x, clean, sigma, context, shapes) -> torch.Tensor:
        """Velocity [1, N, 64] of the target tokens x, in float32."""
        output = self.transformer(
            hidden_states=torch.cat([x, clean], dim=1).to(context.dtype),
            encoder_hidden_states=context,
            timestep=model_time(sigma).expand(x.shape[0]),
            img_shapes=shapes,
            return_dict=False,
        )[0]
        return output[:, : x.shape[1]].float()

    @staticmethod
    def _wake(model: torch.nn.Module) -> None:
        """Brings an offloaded model in: we call its parts, which do not trigger accelerate's hook."""
        hook = getattr(model, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(model)


def _report(lora: Path, unmatched: list[str]) -> None:
    if unmatched:
        warnings.warn(
            f"{lora}: {len(unmatched)} entries have no place in this transformer and were left out "
            f"({summary(unmatched)}). The result will differ from what the LoRA was trained for.",
            OmniAlphaWarning,
            stacklevel=3,
        )


def load(checkpoint, device: torch.device, *, lora_scale: float = 1.0, offload: bool = False):
    """The pipeline on a device, without the libraries' progress bars.

    Args:
        checkpoint: a `Checkpoint`, "micro" or the path of one.
        offload: leave the parts in main memory and bring each one in while it works.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()

    pipeline = OmniAlphaPipeline.from_pretrained(checkpoint, lora_scale=lora_scale)
    if offload and device.type != "cpu":
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    return pipeline.to(device)
