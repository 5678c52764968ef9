"""Train micro's RGBA VAE from nothing, on single pictures.

    python -m omnialpha.train.vae --packages node_modules --out runs/vae --minutes 12

The loss compares composites over black, white and a random colour, and alpha itself, so that colour counts where it
shows. Pixels under alpha 0 come in with random colours now and then: the latent must not depend on them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ..data.triplets import Composer, composite, load_bank, opaque
from ..vae import single_frame
from .mean_path import start_with_means
from .muon import Muon
from .schedule import Average, Budget, set_rate, warm_then_linear

SIZES = ((64, 64), (64, 64), (96, 96))
KL_WEIGHT = 3e-4
CHROMA_WEIGHT = 1.0


def build_vae():
    """Micro's VAE: ComfyUI's fixed shape (z 16, multipliers 1 2 4 4, 2 residual blocks) at base width 16."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True],
        input_channels=4, latents_mean=[0.0] * 16, latents_std=[1.0] * 16,
    )  # fmt: skip


def draw_picture(composer: Composer, size: tuple[int, int]) -> np.ndarray:
    """What the VAE will meet: objects, composites, backgrounds and guides. [h, w, 4] in [0, 1]."""
    choice = composer.rng.random()
    if choice < 0.25:
        return opaque(composer.background(size))
    foreground, _ = composer.foreground(size)
    if choice < 0.70:
        return foreground
    if choice < 0.92:
        return opaque(composite(foreground, composer.background(size)))
    guides = list(composer.guides(foreground[..., 3]).values())
    return opaque(guides[composer.rng.integers(len(guides))])


def draw_batch(composer: Composer, size: tuple[int, int], count: int) -> torch.Tensor:
    """[count, 4, h, w] in [0, 1]."""
    return torch.from_numpy(np.stack([draw_picture(composer, size) for _ in range(count)])).float().permute(0, 3, 1, 2)


def to_input(pictures: torch.Tensor, hide: bool = True) -> torch.Tensor:
    """[-1, 1] with a frame axis; three in ten pictures get a random colour under alpha 0."""
    if hide:
        colour = torch.rand(len(pictures), 3, 1, 1) * (torch.rand(len(pictures), 1, 1, 1) < 0.3)
        rgb = torch.where(pictures[:, 3:] > 0, pictures[:, :3], colour)
        pictures = torch.cat([rgb, pictures[:, 3:]], 1)
    return (pictures * 2 - 1)[:, :, None]


def over_colour(pictures: torch.Tensor, colour: torch.Tensor | float) -> torch.Tensor:
    """Composite over a colour, [n, 3, h, w]."""
    return pictures[:, :3] * pictures[:, 3:] + (1 - pictures[:, 3:]) * colour


def robust(error: torch.Tensor) -> torch.Tensor:
    """L1 plus twice the square: sharp near zero, firm far away."""
    return error.abs().mean() + 2 * error.pow(2).mean()


def reconstruction_loss(pictures: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Composites over three colours, their chroma, and alpha. Both arguments [n, 4, h, w] in [0, 1]."""
    total = robust(decoded[:, 3:] - pictures[:, 3:])
    for colour in (0.0, 1.0, torch.rand(len(pictures), 3, 1, 1)):
        error = over_colour(decoded, colour) - over_colour(pictures, colour)
        total = total + robust(error) / 3
    chroma = error - error.mean(1, keepdim=True)
    return total + CHROMA_WEIGHT * chroma.abs().mean()


def kl_divergence(posterior) -> torch.Tensor:
    """KL to N(0, 1), mean per latent value (diffusers' own sums over four axes; these posteriors have five)."""
    return 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()


def optimizers(vae, lr: float, muon_lr: float, only: str = "") -> list[torch.optim.Optimizer]:
    """Muon for the inner convolutions, Adam for everything else that a single frame uses."""
    named = [(name, param) for name, param in vae.named_parameters() if "time_conv" not in name and only in name]
    outer = ("conv_in", "decoder.conv_out", "quant_conv", "norm")
    inner = {name for name, param in named if param.ndim >= 4 and not any(part in name for part in outer)}
    return [
        torch.optim.Adam([param for name, param in named if name not in inner], lr=lr, betas=(0.9, 0.95)),
        Muon([param for name, param in named if name in inner], lr=muon_lr, weight_decay=0.0),
    ]


@torch.no_grad()
def measure(vae, bank, size: tuple[int, int], count: int = 64) -> dict[str, float]:
    """Round trip on held-out pictures: PSNR over white for objects and composites, mean absolute alpha error."""
    composer = Composer(bank, "test", seed=5)
    objects = np.stack([composer.foreground(size)[0] for _ in range(count)])
    scenes = np.stack([opaque(composite(item, composer.background(size))) for item in objects])
    result = {}
    for name, pictures in (("objects", objects), ("composites", scenes)):
        pictures = torch.from_numpy(pictures).float().permute(0, 3, 1, 2)
        decoded = torch.cat([round_trip(vae, part, sample=False)[0] for part in pictures.split(8)]).clamp(0, 1)
        error = (over_colour(decoded, 1.0) - over_colour(pictures, 1.0)).pow(2).mean((1, 2, 3))
        result[f"{name}_psnr"] = round(float((-10 * error.log10()).mean()), 2)
        result[f"{name}_alpha_mae"] = round(float((decoded[:, 3] - pictures[:, 3]).abs().mean()), 4)
    return result


def round_trip(vae, pictures: torch.Tensor, sample: bool, hide: bool = False):
    """(decoded [n, 4, h, w] in about [0, 1], posterior)."""
    posterior = vae.encode(to_input(pictures, hide)).latent_dist
    latent = posterior.sample() if sample else posterior.mode()
    return (vae.decode(latent).sample[:, :, 0] + 1) / 2, posterior


@torch.no_grad()
def latent_statistics(vae, composer: Composer, batches: int = 30) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over training pictures."""
    latents = [vae.encode(to_input(draw_batch(composer, (64, 64), 16))).latent_dist.mode() for _ in range(batches)]
    latents = torch.cat(latents)
    return latents.mean((0, 2, 3, 4)).tolist(), latents.std((0, 2, 3, 4)).tolist()


def train(args: argparse.Namespace) -> None:
    """Run, log, and write `out` in diffusers layout with `training.json` beside it."""
    torch.manual_seed(args.seed)
    bank, held_out = load_bank(args.packages, "train"), load_bank(args.packages, "test")
    composer = Composer(bank, "train", seed=args.seed + 1)
    vae = single_frame(start_with_means(build_vae()))
    if args.decoder_of:  # sharpen the decoder alone: latents, and all trained on them, stay valid
        from ..vae import load_vae

        vae = single_frame(load_vae(args.decoder_of))
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    opts = optimizers(vae, args.lr, args.muon_lr, only="dec" if args.decoder_of else "")
    trained = [param for opt in opts for group in opt.param_groups for param in group["params"]]
    average = Average([(name, param) for name, param in vae.named_parameters() if param.requires_grad], decay=0.99)
    budget, step, log = Budget(args.minutes), 0, []
    print("start", measure(vae.eval(), held_out, (64, 64), 16), flush=True)
    while (done := budget.done) < 1:
        set_rate(opts, warm_then_linear(step, done, hold=0.3))
        pictures = draw_batch(composer, SIZES[step % len(SIZES)], args.batch)
        decoded, posterior = round_trip(vae, pictures, sample=True, hide=True)
        loss = reconstruction_loss(pictures, decoded)
        if not args.decoder_of:
            loss = loss + KL_WEIGHT * kl_divergence(posterior)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        step += 1
        log.append(float(loss.detach()))
        if step % 2 == 0:
            average.update()
        if step % 100 == 0:
            print(f"step {step} minute {budget.spent / 60:.1f} loss {np.mean(log[-100:]):.4f}", flush=True)
    average.swap()
    report = {f"{side} px": measure(vae, held_out, (side, side)) for side in (64, 96, 128)}
    if not args.decoder_of:
        mean, std = latent_statistics(vae, composer)
        vae.register_to_config(latents_mean=mean, latents_std=std)
    print(json.dumps(report), flush=True)
    vae.save_pretrained(args.out)
    record = {**vars(args), "steps": step, "held_out": report}
    Path(args.out, "training.json").write_text(json.dumps(record, indent=2, default=str) + "\n")


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, help="node_modules folder with the emoji packages")
    parser.add_argument("--out", required=True, help="folder for the trained VAE (diffusers layout)")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decoder-of", metavar="FOLDER", help="go on with this VAE's decoder, its encoder frozen")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
