"""Train the transformer jointly on all tasks by flow matching (paper section 3.3): `train transformer`.

    torchrun --nproc-per-node 2 -m omnialpha train transformer configs/micro/transformer.yaml --out runs/micro

Built from nothing or from a checkpoint, every weight or a LoRA, alone or with the text encoder. Whatever is trained,
the averaged weights are written as something the library and ComfyUI can use at once.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..checkpoint.folder import Checkpoint
from ..checkpoint.settings import Settings, read_settings
from ..config import to_dict
from ..errors import OmniAlphaError
from ..files.run_folder import FREE, refuse_another
from ..model.loading import load_text_encoder, load_tokenizer, load_transformer
from ..model.rope import install_rope
from ..model.single_frame import single_frame
from ..model.vae import load_vae
from .architecture import build_text_encoder, build_tokenizer, build_transformer
from .cache import vae_print
from .config import TransformerConfig
from .estimate import describe_plan
from .export import MICRO_SETTINGS, stored_as_half, write_models, write_vae
from .flow_loss import draw_times, layer_loss, noise_generator, noisy_sequence
from .loop import TrainingRun
from .lora import add_lora, write_lora
from .muon import Muon
from .processes import average_gradients, open_accelerator
from .prompts import CachedPrompts, PromptEncoder
from .schedule import Average, rate, set_rate
from .sheets import draw_sheet
from .sources import Batch, CacheSource, ImageSource


@dataclass
class Parts:
    """The models of a run, and where what is not trained comes from."""

    transformer: Any  # diffusers' QwenImageTransformer2DModel
    text_encoder: Any  # transformers' Qwen2_5_VLForConditionalGeneration
    tokenizer: Any
    settings: Settings
    checkpoint: Path | None

    def trained(self) -> dict[str, torch.nn.Module]:
        """Name -> module, for those with parameters that are trained."""
        modules = {"transformer": self.transformer, "text_encoder": self.text_encoder.model}
        return {name: module for name, module in modules.items() if any(p.requires_grad for p in module.parameters())}


def train_transformer(config: TransformerConfig, out: Path | str, say=print) -> None:
    """Run to the end, or go on with what a stopped run left in `out`.

    Writes `out/checkpoint` (a complete checkpoint with averaged weights) or `out/lora.safetensors`, and what
    `loop.TrainingRun` writes.

    Raises:
        OmniAlphaError: anything a user can mend, before the first step where possible.
    """
    out = Path(out)
    refuse_another(out, to_dict(config), free=FREE)
    accelerator = open_accelerator(config.precision)
    sharded = accelerator.distributed_type.name == "FSDP"
    if sharded and (config.train_text_encoder or config.optimizer == "muon"):
        raise OmniAlphaError("Sharded training (FSDP) takes AdamW and leaves the text encoder alone.")
    torch.manual_seed(config.seed)  # every process starts from the same weights
    source, vae = open_source(config, accelerator)
    parts = build_parts(config, source, accelerator.device)
    if accelerator.is_main_process:
        say(describe_plan(config, parts, accelerator))
    modules = parts.trained()
    named = trained_parameters(modules)
    optimizers = make_optimizers(named, config)
    if sharded:  # together: the parameters that the optimiser holds are exchanged for spread ones
        parts.transformer, optimizers["adamw"] = accelerator.prepare(parts.transformer, optimizers["adamw"])
        modules = parts.trained()
        named = trained_parameters(modules)
    params = [param for _, param in named]
    average = Average(named, config.ema)
    run = TrainingRun(
        out,
        to_dict(config),
        modules=modules,
        optimizers=optimizers,
        average=average,
        steps=config.steps,
        save_every=config.save_every,
        log_every=config.log_every,
        main=accelerator.is_main_process,
    )
    encoder = PromptEncoder(parts.text_encoder, parts.tokenizer)
    prompts = encoder if config.train_text_encoder else CachedPrompts(encoder, out / "text")
    channels = torch.tensor(source.channels) if config.decoder_weighted and source.channels else None
    for step in run.loop():
        set_rate(list(optimizers.values()), rate(step, config.steps, config.schedule, config.warm, config.hold))
        batches = source.batches(step, accelerator.process_index)
        for group, batch in enumerate(batches):
            generator = noise_generator(config.seed, step, accelerator.process_index, group)
            # Fused attention has a slow bfloat16 backward pass on CPUs; at a hundred tokens plain products are faster.
            slow = config.precision == "bf16" and accelerator.device.type == "cpu"
            with accelerator.autocast(), sdpa_kernel(SDPBackend.MATH) if slow else nullcontext():
                loss = batch_loss(
                    parts.transformer,
                    prompts,
                    batch,
                    config,
                    generator=generator,
                    channels=channels,
                    device=accelerator.device,
                )
            accelerator.backward(loss / len(batches))
            run.note("loss", float(loss.detach()))
            run.note(f"loss/{batch.task}", run.pending["loss"][-1])
        if not sharded:
            average_gradients(accelerator, params)
        norm: Any = accelerator.clip_grad_norm_(params, config.clip)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update()
        run.log_means(norm=float(norm))
        if run.due(config.save_every or config.steps):
            export(parts, config, average, vae=vae, out=out, accelerator=accelerator)
        if config.sheet_data and run.due(config.sheet_every) and accelerator.is_main_process and not sharded:
            average.swap()
            run.sheet("tasks", draw_sheet(parts, vae, config, step + 1))
            average.swap()
    accelerator.end_training()


def trained_parameters(modules: dict[str, torch.nn.Module]) -> list[tuple[str, torch.nn.Parameter]]:
    """(name, parameter) of everything that is trained."""
    named = [(f"{key}.{name}", param) for key, module in modules.items() for name, param in module.named_parameters()]
    return [(name, param) for name, param in named if param.requires_grad]


def batch_loss(
    transformer,
    prompts,
    batch: Batch,
    config: TransformerConfig,
    *,
    generator: torch.Generator,
    channels: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """The loss of one batch: noise it, ask the transformer for the velocity, compare layer by layer."""
    t = draw_times(len(batch), config.times_of(batch.task), generator)
    tokens, shapes, wanted = noisy_sequence(batch, t, generator)
    context, mask = prompts(batch.instructions, batch.seen)
    dtype = next(transformer.parameters()).dtype
    velocity = transformer(
        hidden_states=tokens.to(device, dtype),
        encoder_hidden_states=context.to(device, dtype),
        encoder_hidden_states_mask=None if mask is None else mask.to(device),
        timestep=t.to(device, dtype),
        img_shapes=shapes,
        return_dict=False,
    )[0]
    return layer_loss(velocity, wanted, None if channels is None else channels.to(device))


def open_source(config: TransformerConfig, accelerator):
    """(source of batches, the VAE that belongs to it). OmniAlphaError where the two do not fit."""
    if config.stream:
        vae = single_frame(load_vae(config.stream.vae)).requires_grad_(False)
        return ImageSource(config, vae, accelerator.num_processes), vae
    source = CacheSource(config)
    place = source.encoding.vae
    vae = single_frame(load_vae(place)).requires_grad_(False)
    if vae_print(vae) != source.note["vae"]:
        raise OmniAlphaError(
            f"The latents in {config.cache} were made with another VAE than {place} holds now. Cache them anew."
        )
    return source, vae


def build_parts(config: TransformerConfig, source, device: torch.device) -> Parts:
    """The models: built from nothing, or loaded, with adapters where asked for; what is not trained is frozen."""
    text_encoder: Any
    if config.build:
        tokenizer = build_tokenizer(sorted(source.captions()), config.build.vocabulary)
        text_encoder = build_text_encoder(tokenizer, config.build)
        transformer = install_rope(build_transformer(config.build), config.rope)
        encoding, folder = source.encoding, None
        settings = dataclasses.replace(
            MICRO_SETTINGS,
            pixel_budget=encoding.pixel_budget,
            size_multiple=encoding.size_multiple,
            tasks=tuple(task for task in MICRO_SETTINGS.tasks or () if config.weights.get(task, 0) > 0),
        )
    else:
        assert config.checkpoint, "a configuration builds a model or names a checkpoint"
        checkpoint = Checkpoint(config.checkpoint)
        folder = checkpoint.folder
        dtype = torch.bfloat16 if config.precision == "bf16" and device.type == "cuda" else torch.float32
        tokenizer, text_encoder = load_tokenizer(checkpoint), load_text_encoder(checkpoint, dtype)
        transformer, settings = load_transformer(checkpoint, dtype, config.rope), read_settings(folder)
    transformer.requires_grad_(config.lora is None)
    text_encoder.requires_grad_(config.train_text_encoder)
    if config.lora:
        add_lora(transformer, config.lora)
    if config.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return Parts(transformer.to(device).train(), text_encoder.to(device), tokenizer, settings, folder)


def make_optimizers(
    named: list[tuple[str, torch.nn.Parameter]], config: TransformerConfig
) -> dict[str, torch.optim.Optimizer]:
    """AdamW; or Muon for the matrices inside blocks, and AdamW for embeddings, modulations, norms and the two ends."""

    def inner(name: str, param: torch.nn.Parameter) -> bool:
        block = "transformer_blocks" in name or ".layers." in name or ".blocks." in name
        return config.optimizer == "muon" and param.ndim == 2 and block and "_mod" not in name

    matrices = [param for name, param in named if inner(name, param)]
    others = [param for name, param in named if not inner(name, param)]
    decay = 0.0 if config.optimizer == "muon" else config.weight_decay
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.95), weight_decay=decay)
    }
    if matrices:
        precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        optimizers["muon"] = Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay, precision=precision)
    return optimizers


def export(parts: Parts, config: TransformerConfig, average: Average, *, vae, out: Path, accelerator) -> None:
    """Write what has been trained, averaged: a LoRA, or a complete checkpoint."""
    average.swap()
    try:
        if config.lora:
            write_lora(parts.transformer, config.lora, out / "lora.safetensors", accelerator.is_main_process)
        else:
            write_models(
                parts.transformer,
                parts.text_encoder,
                parts.tokenizer,
                parts.settings,
                out / "checkpoint",
                half=parts.checkpoint is None or stored_as_half(parts.checkpoint),
                main=accelerator.is_main_process,
            )
            if accelerator.is_main_process and not (out / "checkpoint/vae").exists():  # it never changes
                write_vae(vae, out / "checkpoint/vae")
    finally:
        average.swap()
