"""The method from end to end on diffusers' and transformers' models.

    pipeline = OmniAlphaPipeline.from_pretrained("micro")
    background, foreground = pipeline("decomposition_auto", images=["photo.png"], seed=7)

Text and input layers are encoded once; the target layers start as noise and are denoised together, as one token
sequence `[text | targets | inputs]` (paper section 3.2).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from .checkpoint import MICRO, check_folder, find_checkpoint, read_headers
from .checks import Size, check_finite
from .errors import Cancelled, OmniAlphaError, OmniAlphaWarning
from .layers import snap_alpha
from .loading import (
    check_parts,
    load_scheduler,
    load_text_encoder,
    load_tokenizer,
    load_transformer,
    stored_dtype,
    summary,
)
from .lora import apply_lora, read_lora
from .request import Request, plan
from .sampling import denoise, guide, initial_noise, sigmas
from .sequence import pack, patchify, unpack
from .settings import FILE_NAME, PUBLIC, Settings, read_settings
from .text import encode_prompt
from .vae import decode_layers, encode_layers, load_vae

VAE_SCALE = 8  # image pixels per latent pixel

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
        checkpoint: str | Path = MICRO,
        *,
        vae: str | Path | None = None,
        lora: str | Path | None = None,
        lora_scale: float = 1.0,
        dtype: torch.dtype | None = None,
        axis: str = "bil",
    ) -> OmniAlphaPipeline:
        """Loads a checkpoint from this machine; nothing is ever downloaded.

        Args:
            checkpoint: "micro" (built in), or a folder in diffusers layout. For the public checkpoint that is the
                Qwen-Image-Edit-2509 folder, together with `vae` and `lora`.
            vae: RGBA VAE file or folder, in either key layout, in place of the folder's own.
            lora: LoRA file or folder for the transformer; it is added to the weights.
            lora_scale: strength of the LoRA.
            dtype: what transformer and text encoder compute in; by default bfloat16 where the transformer is stored so,
                float32 otherwise. The VAE always computes in float32.
            axis: "bil", or "2d" for the ablation without a layer axis.

        Raises:
            OmniAlphaError: something is missing, damaged, or of another architecture. All of that is found out before
                the large weights are read.
        """
        folder = find_checkpoint(checkpoint)
        check_folder(folder, vae_elsewhere=vae is not None)
        settings = read_settings(folder)
        check_parts(folder)
        if lora is not None:
            read_lora(lora).place({name: info.shape for name, info in read_headers(folder / "transformer").items()})
            if not (folder / FILE_NAME).is_file():
                settings = replace(settings, tasks=PUBLIC)
        tokenizer = load_tokenizer(folder)
        autoencoder = load_vae(Path(vae) if vae is not None else folder / "vae")
        dtype = dtype or stored_dtype(folder)
        transformer = load_transformer(folder, dtype, axis)
        if lora is not None:
            _report(Path(lora), apply_lora(transformer, lora, lora_scale))
        return cls(
            transformer, autoencoder, load_text_encoder(folder, dtype), tokenizer, load_scheduler(folder), settings
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
            super().save_pretrained(folder, **(options | {"safe_serialization": True}))
            text = json.dumps(self.settings.to_json(), indent=2) + "\n"
            (Path(folder) / FILE_NAME).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OmniAlphaError(f"Cannot save to {folder}: {error.strerror or error}.") from error

    def __call__(
        self,
        task: str | None = None,
        instruction: str | None = None,
        images: Sequence = (),
        guide=None,
        text: str = "",
        num_targets: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        size: Size | None = None,
        fit: str = "scale",
        callback: Callback | None = None,
        clean: bool = True,
        snap: bool = False,
    ) -> list[torch.Tensor]:
        """Runs a task, or a free instruction.

        Args:
            task: id from the task table; it decides what goes in and what comes out.
            instruction: what the model is told, in place of the task's wording; `{text}` in it is filled in. Without a
                task it has to say everything.
            images: input layers [4, H, W] in [0, 1] with straight alpha (also RGB tensors, PIL images or paths).
            guide: trimap or mask [H, W] (or picture, white = object, grey = unknown) as large as the first image.
            text: the artist's words for tasks that take some.
            num_targets: layers to generate for a free instruction, 1 unless told.
            seed: 0 ... 2**64 - 1; the same seed gives the same layers.
            steps: Euler steps, the checkpoint's default unless told.
            guidance: classifier-free guidance, the checkpoint's default unless told; 1 or less is twice as fast.
            negative: what guidance steers away from.
            size: (height, width) to work at in pixels, in place of the checkpoint's pixel budget.
            fit: "scale", "pad" or "exact", see `layers.Frame`.
            callback: called after each step with (steps done, steps, preview); `preview()` decodes the layers as the
                model sees them so far. Returning False, or raising, stops the run.
            clean: blacken colours hidden under alpha 0 of the inputs.
            snap: make alpha <= 5/255 transparent and >= 250/255 opaque.

        Returns:
            float32 layers [4, H, W] in [0, 1] on the CPU, back to front, in the frame of the first image (at the
            working size where there is none).

        Raises:
            OmniAlphaError: a request that cannot be run, or a model that gives NaN.
            Cancelled: the callback returned False.
        """
        return self.run(
            plan(self.settings, task, instruction, images, guide, text, num_targets, seed, steps, guidance, negative,
                 size, fit, clean, snap),
            callback,
        )  # fmt: skip

    @torch.no_grad()
    def run(self, request: Request, callback: Callback | None = None) -> list[torch.Tensor]:
        """`__call__` for a request that is already planned."""
        try:
            return self._run(request, callback)
        finally:
            self.maybe_free_model_hooks()

    def _run(self, request: Request, callback: Callback | None) -> list[torch.Tensor]:
        device, fitted = self._execution_device, request.fitted
        prompts = [request.instruction] + ([request.negative] if request.guidance > 1 else [])
        contexts = [self._context(prompt, fitted.inputs, device) for prompt in prompts]

        self._wake(self.vae)
        inputs = [latent[None].to(device) for latent in encode_layers(self.vae, fitted.inputs)]
        h, w = (side // VAE_SCALE for side in fitted.size)
        noise = initial_noise(request.seed, fitted.targets, h, w).to(device)
        tokens, shapes = pack(noise, inputs)
        count = fitted.targets * patchify(noise[:, :, 0]).shape[1]
        x, clean = tokens[:, :count], tokens[:, count:]

        def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            predictions = [self._predict(x, clean, sigma, context, shapes) for context in contexts]
            return guide(predictions[0], predictions[-1], request.guidance)

        def finish(x: torch.Tensor) -> list[torch.Tensor]:
            latents = unpack(x, fitted.targets, h, w)[0].transpose(0, 1)
            self._wake(self.vae)
            layers = fitted.restore([layer.cpu() for layer in decode_layers(self.vae, latents)])
            return [snap_alpha(layer) for layer in layers] if request.snap else layers

        def after_step(step: int, steps: int, estimate: torch.Tensor) -> None:
            if callback is not None and callback(step + 1, steps, lambda: finish(estimate)) is False:
                raise Cancelled(f"Stopped after step {step + 1} of {steps}.")

        levels = sigmas(request.steps, count, self.settings.schedule).to(device)
        layers = finish(denoise(velocity, x, levels, after_step))
        return [check_finite(layer, "A decoded layer") for layer in layers]

    def _context(self, prompt: str, layers: list[torch.Tensor], device) -> torch.Tensor:
        """Embeddings [1, L, D] of a prompt with its pictures, in the transformer's dtype."""
        context = encode_prompt(self.text_encoder, self.tokenizer, prompt, layers)
        return check_finite(context, "The text encoder's output").to(device, self.transformer.dtype)

    def _predict(self, x, clean, sigma, context, shapes) -> torch.Tensor:
        """Velocity [1, N, 64] of the target tokens x, in float32."""
        output = self.transformer(
            hidden_states=torch.cat([x, clean], dim=1).to(context.dtype),
            encoder_hidden_states=context,
            timestep=sigma.expand(x.shape[0]),
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
