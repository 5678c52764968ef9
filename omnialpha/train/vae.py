"""Train the RGBA VAE (paper section 3.2.1): `train vae`.

From an RGB VAE by opaque initialisation, from an RGBA one, or from nothing. What is minimised is a table of terms; the
configuration gives each its weight.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import to_dict
from ..data.records import Triplet
from ..errors import OmniAlphaError
from ..sheet import Sheet
from ..vae import load_vae, single_frame
from . import vae_losses as losses
from .config import VAEConfig
from .flow import noise_generator
from .mean_path import CARRIED, start_with_means
from .muon import Muon
from .run import Run
from .schedule import Average, rate, set_rate
from .vae_data import Pictures, blend_some, hide_some, random_colours
from .vae_measure import measure_vae

NARROWEST = 2 * CARRIED + 4  # channels, both signs, a constant one, and a few to learn with


@dataclass
class Step:
    """What the loss terms may look at: the pictures, what came of them, and what judges it."""

    truth: torch.Tensor
    decoded: torch.Tensor
    posterior: object
    colour: torch.Tensor
    reference: object | None = None
    perceptual: losses.Perceptual | None = None


def _reference_kl(step: Step) -> torch.Tensor:
    """Only opaque pictures mean something to the RGB VAE."""
    opaque = (step.truth[:, 3] == 1).all(-1).all(-1)
    if step.reference is None or not opaque.any():
        return step.truth.new_zeros(())
    with torch.no_grad():
        wanted = step.reference.encode((step.truth[opaque] * 2 - 1)[:, :, None]).latent_dist
    own = step.posterior
    part = type(own)(own.parameters[opaque])
    return losses.reference_kl(part, wanted)


def _perceptual(step: Step) -> torch.Tensor:
    if step.perceptual is None:
        return step.truth.new_zeros(())
    return step.perceptual(step.decoded, step.truth, (step.colour, 1 - step.colour))


TERMS: dict[str, Callable[[Step], torch.Tensor] | None] = {
    "expected_composite": lambda step: losses.expected_composite(step.decoded, step.truth),
    "composite_l1": lambda step: losses.composite_l1(step.decoded, step.truth, step.colour),
    "chroma": lambda step: losses.chroma(step.decoded, step.truth, step.colour),
    "kl": lambda step: losses.kl(step.posterior),
    "reference_kl": _reference_kl,
    "perceptual": _perceptual,
    "adversarial": None,  # needs the others' sum first; see `_adversarial`
}


def build_vae(base_dim: int = 16, channels: int = 4):
    """A VAE from nothing, in ComfyUI's fixed shape (z 16, multipliers 1 2 4 4, 2 residual blocks)."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=base_dim, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True],
        input_channels=channels, latents_mean=[0.0] * 16, latents_std=[1.0] * 16,
    )  # fmt: skip


def open_vae(config: VAEConfig):
    """(the VAE to train, a frozen one with the RGB VAE's encoder or None)."""
    if config.rgba:
        return load_vae(config.rgba), None
    if config.rgb:
        # Until it is trained, an opaquely initialised encoder answers as the RGB one does, bit for bit.
        reference = load_vae(config.rgb, opaque_init=True).requires_grad_(False)
        return load_vae(config.rgb, opaque_init=True), reference if config.loss.get("reference_kl") else None
    if config.channels == CARRIED and config.base_dim < NARROWEST:
        raise OmniAlphaError(
            f"base_dim: expected {NARROWEST} or more, found {config.base_dim}. A VAE from nothing starts by "
            "carrying the four channels with both signs."
        )
    vae = build_vae(config.base_dim, config.channels)
    return start_with_means(vae) if config.channels == 4 else vae, None


def train_vae(config: VAEConfig, out: Path | str, say=print) -> None:
    """Run to the end, or go on with what a stopped run left in `out`.

    Writes `out/vae` (diffusers layout, averaged weights, latents_mean and latents_std measured), and what `run.Run`
    writes.

    Raises:
        OmniAlphaError: anything a user can mend, before the first step where possible.
    """
    from accelerate import Accelerator

    out = Path(out)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), mixed_precision="bf16" if config.precision == "bf16" else "no"
    )
    torch.manual_seed(config.seed)
    pictures = Pictures(config)
    perceptual = losses.Perceptual(config.perceptual).to(accelerator.device) if config.perceptual else None
    if config.loss.get("perceptual") and not perceptual:
        say("No perceptual weights are given: the perceptual term is left out.")
    vae, reference = open_vae(config)
    vae = single_frame(vae).to(accelerator.device).train().requires_grad_(True)
    if config.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    for name, param in vae.named_parameters():  # a single frame never meets these
        if "time_conv" in name:
            param.requires_grad_(False)
    critic = losses.PatchDiscriminator().to(accelerator.device) if config.loss.get("adversarial") else None
    optimizers = make_optimizers(vae, critic, config)
    named = list(vae.named_parameters())
    average = Average(named, config.ema)
    with accelerator.main_process_first():
        run = Run(
            out, to_dict(config), modules={"vae": vae, **({"critic": critic} if critic else {})},
            optimizers=optimizers, average=average, steps=config.steps, save_every=config.save_every,
            log_every=config.log_every, main=accelerator.is_main_process,
        )  # fmt: skip
    params = [param for _, param in average.named]
    judged = [optimizer for name, optimizer in optimizers.items() if name != "critic"]
    for step in run.loop():
        set_rate(list(optimizers.values()), rate(step, config.steps, config.schedule, config.warm, config.hold))
        generator = noise_generator(config.seed, step, accelerator.process_index, 0)
        truth = blend_some(pictures.batch(step, accelerator.process_index), config.blend, generator)
        shown = hide_some(truth, config.hidden, generator).to(accelerator.device)
        colour = random_colours(len(truth), generator).to(accelerator.device)
        truth = truth.to(accelerator.device)
        with accelerator.autocast():
            decoded, posterior = round_trip(vae, shown, generator)
            state = Step(truth, decoded.float(), posterior, colour, reference, perceptual)
            total, parts = weighted_sum(state, config.loss)
            if critic and step >= config.discriminator_start:
                term = _adversarial(vae, critic, state, total)
                total = total + config.loss["adversarial"] * term
                parts["adversarial"] = float(term.detach())
        accelerator.backward(total)
        _update(accelerator, params, judged, config.clip)
        if critic and step >= config.discriminator_start:
            fake = critic.score(state.decoded.detach(), colour)
            loss = losses.hinge_discriminator(critic.score(truth, colour), fake)
            optimizers["critic"].zero_grad(set_to_none=True)
            accelerator.backward(loss)
            _update(accelerator, list(critic.parameters()), [optimizers["critic"]], config.clip)
            parts["critic"] = float(loss.detach())
        average.update()
        run.note("loss", float(total.detach()))
        for name, value in parts.items():
            run.note(f"loss/{name}", value)
        run.log_means()
        if run.due(config.sheet_every) and accelerator.is_main_process:
            average.swap()
            run.sheet("round-trip", draw_round_trips(vae, pictures, step + 1))
            average.swap()
    if accelerator.is_main_process:
        average.swap()
        finish(vae.eval(), pictures, config, out, say)
    accelerator.end_training()


def round_trip(vae, pictures: torch.Tensor, generator: torch.Generator | None = None):
    """(decoded [n, 4, h, w] in about [0, 1], posterior). With a generator the latent is sampled, else it is the mean.

    A VAE for RGB gets the pictures as they are over black, and its answer counts as opaque.
    """
    channels = vae.encoder.conv_in.weight.shape[1]
    shown = pictures if channels == 4 else losses.over_colour(pictures, 0.0)
    posterior = vae.encode((shown * 2 - 1)[:, :, None]).latent_dist
    latent = posterior.mode()
    if generator is not None:
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        latent = latent + posterior.std * noise
    decoded = (vae.decode(latent).sample[:, :, 0] + 1) / 2
    return decoded if channels == 4 else torch.cat([decoded, torch.ones_like(decoded[:, :1])], 1), posterior


def weighted_sum(step: Step, weights: dict[str, float]) -> tuple[torch.Tensor, dict[str, float]]:
    """All terms but the adversarial one: (their weighted sum, each as a number)."""
    values = {name: TERMS[name](step) for name, weight in weights.items() if weight and TERMS[name]}
    total = sum(weights[name] * value for name, value in values.items())
    return total, {name: float(value.detach()) for name, value in values.items()}


def _adversarial(vae, critic, step: Step, reconstruction: torch.Tensor) -> torch.Tensor:
    """The generator's part of the hinge loss, brought to the size of the reconstruction's gradient."""
    critic.requires_grad_(False)
    term = -critic.score(step.decoded, step.colour).mean()
    critic.requires_grad_(True)
    last = vae.decoder.conv_out.weight
    return losses.adaptive_weight(reconstruction, term, last) * term


def _update(accelerator, params, optimizers, clip: float) -> None:
    from .transformer import average_gradients

    average_gradients(accelerator, params)
    torch.nn.utils.clip_grad_norm_(params, clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def make_optimizers(vae, critic, config: VAEConfig) -> dict[str, torch.optim.Optimizer]:
    """AdamW; or Muon for inner convolutions and AdamW for the rest; and AdamW for the discriminator."""
    named = [(name, param) for name, param in vae.named_parameters() if param.requires_grad]
    outer = ("conv_in", "decoder.conv_out", "quant_conv", "norm")
    inner = {
        name for name, param in named
        if config.optimizer == "muon" and param.ndim >= 4 and not any(part in name for part in outer)
    }  # fmt: skip
    others = [param for name, param in named if name not in inner]
    optimizers: dict = {"adamw": torch.optim.AdamW(others, lr=config.lr, betas=config.betas, weight_decay=0.0)}
    if inner:
        matrices = [param for name, param in named if name in inner]
        optimizers["muon"] = Muon(matrices, lr=config.muon_lr, weight_decay=0.0)
    if critic:
        optimizers["critic"] = torch.optim.AdamW(critic.parameters(), lr=config.lr, betas=config.betas)
    return optimizers


@torch.no_grad()
def finish(vae, pictures: Pictures, config: VAEConfig, out: Path, say) -> None:
    """Measure the latents' statistics, write the VAE, and say how well it keeps pictures."""
    if not config.decoder_only:
        latents = [
            round_trip(vae, pictures.batch(config.steps + index, 0).to(vae.device))[1].mode().transpose(0, 1).flatten(1)
            for index in range(24)
        ]
        latents = torch.cat(latents, 1)  # [16, values]
        vae.register_to_config(latents_mean=latents.mean(1).tolist(), latents_std=latents.std(1).tolist())
    vae.save_pretrained(out / "vae")
    report = measure_vae(vae, [r for r in pictures.records if isinstance(r, Triplet)], config.sizes[-1], limit=64)
    (out / "measured.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say("on pictures it was trained with: " + ", ".join(f"{name} {value:.4g}" for name, value in report.items()))


@torch.no_grad()
def draw_round_trips(vae, pictures: Pictures, step: int, count: int = 6) -> Sheet:
    """Pictures, and what the VAE makes of them."""
    sheet = Sheet(f"step {step}", ["picture", "round trip", "alpha error x 4"])
    truth = pictures.batch(0, 0)[:count]
    decoded = round_trip(vae, truth.to(vae.device))[0].clamp(0, 1).cpu()
    for before, after in zip(truth, decoded):
        error = ((after[3] - before[3]).abs() * 4).clamp(0, 1)
        sheet.add("", [], [before, after, torch.stack([error, error, error, torch.ones_like(error)])])
    return sheet
