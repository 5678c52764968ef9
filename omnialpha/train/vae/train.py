"""Train the RGBA VAE (paper section 3.2.1): `train vae`.

    python -m omnialpha train vae configs/micro/vae.yaml --out runs/vae

From an RGB VAE by opaque initialisation, from an RGBA one, or from nothing. What is minimised is a table of terms, see
`vae_terms`; the configuration gives each its weight.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...checkpoint.vae_keys import channels
from ...checkpoint.weights import load_tensors
from ...config import to_dict
from ...data.records import read_records
from ...errors import OmniAlphaError
from ...files.run_folder import FREE, refuse_another
from ...files.sheet import Sheet
from ...files.writing import write_json, write_tensors
from ...json_files import read_json
from ...model.single_frame import single_frame
from ...model.vae import load_vae
from ..flow_loss import noise_generator
from ..loop import TrainingRun
from ..muon import Muon
from ..processes import average_gradients, open_accelerator
from ..schedule import Average, rate, set_rate
from .config import VAEConfig
from .critics import ObjectReader, PatchDiscriminator, Perceptual
from .first_weights import start_with_means
from .measure import measurable, measure_vae
from .pictures import Pictures
from .terms import ADVERSARIAL, Step, adversarial, decode, discrimination, encode, round_trip, sample, weighted_sum

CHECKED = 64  # held-out records that are measured before and after
COUNTED = 24  # batches that the latents' mean and deviation are taken from


def train_vae(config: VAEConfig, out: Path | str, say=print) -> None:
    """Run to the end, or go on with what a stopped run left in `out`.

    Writes `out/vae` (diffusers layout, averaged weights, latents_mean and latents_std measured), `out/training.json`
    (the configuration, and how well held-out pictures came back before and after), and what `loop.TrainingRun` writes.

    Raises:
        OmniAlphaError: anything a user can mend, before the first step where possible.
    """
    out = Path(out)
    refuse_another(out, to_dict(config), free=FREE)
    accelerator = open_accelerator(config.precision)
    torch.manual_seed(config.seed)
    pictures = Pictures(config, accelerator.process_index)
    held_out = measurable(read_records(config.held_out).of_split("test"), config.held_out) if config.held_out else []
    perceptual = Perceptual(config.perceptual).to(accelerator.device) if config.perceptual else None
    vae, reference = (part and part.to(accelerator.device) for part in open_vae(config))
    weights = dict(config.loss)
    for name, part, needed in (("perceptual", perceptual, "perceptual: FILE"), ("reference_kl", reference, "rgb: VAE")):
        if part is None and weights.pop(name, 0) and accelerator.is_main_process:
            say(f"The term {name} is left out: `{needed}` is not given.")
    freeze(vae, config.decoder_only)
    critic = None
    if weights.get(ADVERSARIAL):
        critic = PatchDiscriminator(config.critic.width, config.critic.layers).to(accelerator.device)
    reader = ObjectReader().to(accelerator.device) if weights.get("objects") else None
    helpers: dict[str, nn.Module] = {name: part for name, part in (("critic", critic), ("reader", reader)) if part}
    optimizers = make_optimizers(vae, helpers, config)
    average = Average(list(vae.named_parameters()), config.ema)
    with accelerator.main_process_first():
        run = TrainingRun(
            out,
            to_dict(config),
            modules={"vae": vae, **helpers},
            optimizers=optimizers,
            average=average,
            steps=config.steps,
            save_every=config.save_every,
            log_every=config.log_every,
            main=accelerator.is_main_process,
        )
    report = Report(out / "training.json", config, held_out)
    if accelerator.is_main_process and run.step == 0:
        say(report.add("before", vae))
    params = [param for _, param in average.named] + (list(reader.parameters()) if reader else [])
    decoded_part = max(1, round(config.batch * config.decoded))
    batches = pictures.batches(range(run.step * config.accumulate, config.steps * config.accumulate))
    judged = config.critic.start if critic else math.inf
    for step in run.loop():
        set_rate(list(optimizers.values()), rate(step, config.steps, config.schedule, config.warm, config.hold))
        for part in range(config.accumulate):
            generator = noise_generator(config.seed, step, accelerator.process_index, part)
            shown, truth, objects, _ = next(batches)
            colour = torch.rand(decoded_part, 3, 1, 1, generator=generator).to(accelerator.device)
            with accelerator.autocast():
                posterior = encode(vae, shown.to(accelerator.device))
                latents = sample(posterior, generator)
                state = Step(
                    truth[:decoded_part].to(accelerator.device),
                    decode(vae, latents[:decoded_part]),
                    posterior,
                    colour,
                    objects=objects.to(accelerator.device),
                    latents=latents,
                    reader=reader,
                    background=(config.background.mean, config.background.square),
                    reference=reference,
                    perceptual=perceptual,
                )
                total, parts = weighted_sum(state, weights)
                if critic and step >= judged:
                    term = adversarial(critic, state, total, vae.decoder.conv_out.weight)
                    total, parts[ADVERSARIAL] = total + weights[ADVERSARIAL] * term, float(term.detach())
            accelerator.backward(total / config.accumulate)
            if critic and step >= judged:
                with accelerator.autocast():
                    loss = discrimination(critic, state)
                accelerator.backward(loss / config.accumulate)
                parts["critic"] = float(loss.detach())
            run.note("loss", float(total.detach()))
            for name, value in parts.items():
                run.note(f"loss/{name}", value)
        norm = update(accelerator, params, [item for name, item in optimizers.items() if name != "critic"], config.clip)
        if critic and step >= judged:
            update(accelerator, list(critic.parameters()), [optimizers["critic"]], config.clip)
        average.update()
        run.log_means(norm=norm)
        if run.due(config.sheet_every) and accelerator.is_main_process:
            average.swap()
            run.sheet("round-trip", draw_round_trips(vae, pictures, step + 1))
            average.swap()
    if accelerator.is_main_process:
        average.swap()
        vae.eval()
        if not config.decoder_only:
            measure_latents(vae, pictures, config)
        vae.save_config(out / "vae")
        write_tensors(out / "vae/diffusion_pytorch_model.safetensors", vae.state_dict(), {"format": "pt"})
        say(report.add("after", vae))
    accelerator.end_training()


def build_vae(base_dim: int = 16, channels: int = 4) -> Any:
    """A VAE from nothing, in ComfyUI's fixed shape (z 16, multipliers 1 2 4 4, 2 residual blocks)."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=base_dim,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        temperal_downsample=[False, True, True],
        input_channels=channels,
        latents_mean=[0.0] * 16,
        latents_std=[1.0] * 16,
    )


def open_vae(config: VAEConfig) -> tuple[Any, Any]:
    """(the VAE to train, with the fast path for single frames; a frozen one that encodes as the RGB VAE, or None).

    Raises:
        OmniAlphaError: `rgb` or `rgba` cannot be read, or has other channels.
    """
    reference = None
    if config.rgba:
        vae = load_vae(config.rgba)
    elif config.rgb:
        if channels(load_tensors(config.rgb)) == (4, 4):
            raise OmniAlphaError(f"{config.rgb} is an RGBA VAE already: give it as `rgba` to go on with it.")
        vae = load_vae(config.rgb, opaque_init=True)
        if config.loss.get("reference_kl"):
            # Until it is trained, an opaquely initialised encoder answers as the RGB one does, bit for bit.
            reference = load_vae(config.rgb, opaque_init=True).requires_grad_(False)
    else:
        vae = single_frame(start_with_means(build_vae(config.base_dim, config.channels)))
    return vae, reference


def freeze(vae: nn.Module, decoder_only: bool) -> None:
    """Mark what is trained: everything that a single frame meets, or of that the decoder alone."""
    vae.train().requires_grad_(True)
    for name, param in vae.named_parameters():
        if "time_conv" in name or (decoder_only and name.startswith(("encoder", "quant_conv"))):
            param.requires_grad_(False)


def make_optimizers(
    vae: nn.Module, helpers: dict[str, nn.Module], config: VAEConfig
) -> dict[str, torch.optim.Optimizer]:
    """AdamW; or Muon for inner convolutions and AdamW for the rest; and AdamW for what helps to train, by its name."""
    named = [(name, param) for name, param in vae.named_parameters() if param.requires_grad]
    outer = ("conv_in", "decoder.conv_out", "quant_conv", "norm")
    inner = {
        name
        for name, param in named
        if config.optimizer == "muon" and param.ndim >= 4 and not any(part in name for part in outer)
    }
    others = [param for name, param in named if name not in inner]
    optimizers: dict = {"adamw": torch.optim.AdamW(others, lr=config.lr, betas=config.betas, weight_decay=0.0)}
    if inner:
        matrices = [param for name, param in named if name in inner]
        optimizers["muon"] = Muon(matrices, lr=config.muon_lr, weight_decay=0.0)
    for name, part in helpers.items():
        lr = config.critic.lr if name == "critic" else config.lr
        optimizers[name] = torch.optim.AdamW(part.parameters(), lr=lr, betas=config.betas)
    return optimizers


def update(accelerator, params: list[nn.Parameter], optimizers: list[torch.optim.Optimizer], clip: float) -> float:
    """One step along gradients averaged over processes; gives their norm before clipping.

    Raises:
        OmniAlphaError: it is not finite. The weights are as they were.
    """
    average_gradients(accelerator, params)
    norm = float(nn.utils.clip_grad_norm_(params, clip))
    if not math.isfinite(norm):
        raise OmniAlphaError(
            f"The gradient's norm is {norm}: training has diverged. The last saved state is as it was; lower the "
            "learning rate, or look for broken data."
        )
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm


@torch.no_grad()
def measure_latents(vae: Any, pictures: Pictures, config: VAEConfig) -> None:
    """Put the latents' mean and deviation per channel, over pictures that no step has seen, into the VAE's config."""
    start = config.steps * config.accumulate
    latents = torch.cat(
        [
            round_trip(vae, drawn.truth.to(vae.device))[1].mode().transpose(0, 1).flatten(1).cpu()
            for drawn in pictures.batches(range(start, start + COUNTED))
        ],
        1,
    )
    vae.register_to_config(latents_mean=latents.mean(1).tolist(), latents_std=latents.std(1).tolist())


@torch.no_grad()
def draw_round_trips(vae: Any, pictures: Pictures, step: int, count: int = 6) -> Sheet:
    """The first pictures of the run, and what the VAE makes of them."""
    sheet = Sheet(f"step {step}", ["picture", "round trip", "alpha", "alpha after", "alpha error x 4"])
    truth = pictures[0].truth[:count]
    decoded = round_trip(vae, truth.to(vae.device))[0].clamp(0, 1).cpu()
    for before, after in zip(truth, decoded):
        planes = (before[3], after[3], ((after[3] - before[3]).abs() * 4).clamp(0, 1))
        grey = [torch.cat([plane.expand(3, -1, -1), torch.ones_like(plane)[None]]) for plane in planes]
        sheet.add("", [], [before, after, *grey])
    return sheet


class Report:
    """`training.json`: the configuration, and what was measured on held-out pictures before and after.

    Args:
        path: where it is kept.
        config: of the run.
        held_out: triplets to measure on; none, nothing measured.
    """

    def __init__(self, path: Path, config: VAEConfig, held_out: list):
        self.path, self.held_out = path, held_out
        self.sizes = sorted(set(config.sizes))
        self.data = {"config": to_dict(config), "held_out": {}}
        if path.is_file():  # of the same configuration, or the run would have been refused
            self.data["held_out"] = read_json(path).get("held_out", {})

    def add(self, when: str, vae: nn.Module) -> str:
        """Measure now, write it down, and give a line for people."""
        found = {
            f"{height}x{width}": measure_vae(vae, self.held_out, (height, width), CHECKED)
            for height, width in self.sizes
            if self.held_out
        }
        self.data["held_out"][when] = found
        write_json(self.path, self.data)
        lines = [
            f"{when}, {size} pixels: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            for size, values in found.items()
        ]
        return "\n".join(lines) or "Nothing is measured: no `held_out` data set is given."
