"""Measures `omnialpha refine` on held-out composites against plain upscaling; docs/refine.md has the numbers.

    python -m omnialpha data build configs/micro/test.yaml --set size=512 --set count=96 --packages node_modules \\
        --out data/refine
    python tools/measure_refine.py data/refine --skip 32

The model's matte is the true alpha made small (`--seen` pixels), rounded to 8 bits, with `--noise`; or, with `--micro`,
what the built-in model makes of the picture and a trimap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from omnialpha.data.records import read_records
from omnialpha.files.pictures import read_layer
from omnialpha.layers.compositing import trimap
from omnialpha.layers.foreground import foreground_colour
from omnialpha.layers.refining import refine_alpha
from omnialpha.layers.resizing import fit_size, resize, resize_plane
from omnialpha.metrics import alpha_mse, grad, unknown

GUIDED = {"radius": 4, "epsilon": 1e-4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seen", type=int, default=128, help="side the model works at, in pixels (%(default)s)")
    parser.add_argument(
        "--noise", type=float, default=0.0, help="standard error of the model's colours and soft alpha (%(default)s)"
    )
    parser.add_argument("--micro", action="store_true", help="mattes by the built-in model")
    parser.add_argument("--trimap", type=int, metavar="PX", help="with a trimap as well, unknown by so many pixels")
    parser.add_argument(
        "--skip", type=int, default=0, help="leave out the first records and their objects (%(default)s)"
    )
    parser.add_argument("--count", type=int, help="records after those (all)")
    args = parser.parse_args()
    pipeline = None
    if args.micro:
        from omnialpha import OmniAlphaPipeline

        pipeline = OmniAlphaPipeline.from_pretrained("micro")
    alphas: dict[str, list] = {}
    colours: dict[str, list] = {}
    for picture, truth in tqdm(list(examples(args.dataset, args.skip, args.count)), unit="picture", disable=None):
        matte = model_matte(truth, args) if pipeline is None else micro_matte(pipeline, picture, truth)
        measure(picture, truth, matte, None if args.trimap is None else trimap(truth[3], args.trimap), alphas, colours)
    how = "micro" if args.micro else f"the true alpha at {args.seen} px, noise {args.noise:g}"
    print(f"{len(alphas['bicubic'])} pictures; matte: {how}")
    print(f"{'alpha':34}{'MSE x1000':>12}{'Grad /1000':>12}")
    for name, rows in alphas.items():
        mse, grad = torch.tensor(rows).mean(dim=0)
        print(f"{name:34}{mse * 1e3:12.4f}{grad / 1e3:12.4f}")
    print(f"{'colour of soft pixels':34}{'error /255':>12}")
    for name, rows in colours.items():
        print(f"{name:34}{255 * torch.tensor(rows).mean():12.2f}")


def examples(dataset: Path, skip: int, count: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(picture [3, H, W], the true object [4, H, W])."""
    records = read_records(dataset).records
    known = {record.captions["foreground"] for record in records[:skip]}
    for record in [record for record in records[skip:] if record.captions["foreground"] not in known][:count]:
        yield read_layer(record.pictures["composite"])[:3], read_layer(record.pictures["foreground"])


def model_matte(truth: torch.Tensor, args) -> torch.Tensor:
    """The true object as a model with small errors would give it: [4, seen, seen]."""
    small = resize(truth, fit_size(*truth.shape[1:], args.seen**2, 1))
    alpha = small[3]
    noise = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(0))
    alpha = (alpha + args.noise * noise * 2 * (alpha * (1 - alpha)).sqrt()).clamp(0, 1)
    coarse = torch.randn(1, 3, *(max(1, side // 4) for side in alpha.shape), generator=torch.Generator().manual_seed(1))
    colour = small[:3] + args.noise * F.interpolate(coarse, size=alpha.shape, mode="bicubic")[0]
    return (torch.cat([colour.clamp(0, 1), alpha[None]]) * 255).round() / 255


def micro_matte(pipeline, picture: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """What micro makes of the picture with a trimap, at the size it works at."""
    guide = trimap(truth[3], 8)
    whole = torch.cat([picture, torch.ones_like(picture[:1])])
    (layer,) = pipeline("matting_trimap", images=[whole], guide=guide, seed=0, pixels="redraw")
    return resize(layer, (96, 96))


def measure(
    picture: torch.Tensor,
    truth: torch.Tensor,
    matte: torch.Tensor,
    known: torch.Tensor | None,
    alphas: dict,
    colours: dict,
) -> None:
    """Adds one picture's errors to the tables."""
    size = tuple(truth.shape[1:])
    found = {
        "bilinear": F.interpolate(matte[None, 3:], size=size, mode="bilinear")[0, 0],
        "bicubic": resize_plane(matte[3], size),
        "guided filter": guided(picture, resize_plane(matte[3], size), **GUIDED),
        "refine": refine_alpha(picture, matte[3]),
    }
    if known is not None:
        plain = found["bicubic"]
        found["bicubic, trimap laid over it"] = torch.where(unknown(known), plain, known)
        found["refine with the trimap"] = refine_alpha(picture, matte[3], trimap=known)
    for name, alpha in found.items():
        alphas.setdefault(name, []).append([alpha_mse(alpha, truth[3]), grad(alpha, truth[3])])
    estimates = {
        "the picture's own": picture,
        "the model's, scaled up": resize(matte, size)[:3],
        "refine": foreground_colour(picture, found["refine"], matte),
        "refine, from alpha alone": foreground_colour(picture, found["refine"]),
    }
    weight = truth[3] * ((truth[3] > 0.02) & (truth[3] < 0.98))
    for name, colour in estimates.items():
        error = ((colour - truth[:3]).abs().mean(dim=0) * weight).sum() / weight.sum().clamp_min(1e-9)
        colours.setdefault(name, []).append(float(error))


def guided(picture: torch.Tensor, alpha: torch.Tensor, radius: int, epsilon: float) -> torch.Tensor:
    """He et al., "Guided Image Filtering" (2013), eq. 19-21, with a colour guide."""

    def mean(planes: torch.Tensor) -> torch.Tensor:
        kernel = 2 * radius + 1
        return F.avg_pool2d(planes[None], kernel, 1, radius, count_include_pad=False)[0]

    centre, level = mean(picture), mean(alpha[None])
    covariance = mean(picture * alpha) - centre * level
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    moments = mean(torch.stack([picture[i] * picture[j] for i, j in pairs]))
    spread = {(i, j): m - centre[i] * centre[j] + epsilon * (i == j) for (i, j), m in zip(pairs, moments, strict=True)}
    inverse = symmetric_inverse(spread)
    slope = torch.stack([sum(inverse[min(i, j), max(i, j)] * covariance[j] for j in range(3)) for i in range(3)])
    offset = level - (slope * centre).sum(dim=0, keepdim=True)
    return ((mean(slope) * picture).sum(dim=0) + mean(offset)[0]).clamp(0, 1)


def symmetric_inverse(m: dict[tuple[int, int], torch.Tensor]) -> dict[tuple[int, int], torch.Tensor]:
    """Of symmetric 3 x 3 matrices, one per pixel, given and returned as their upper triangles."""
    a, b, c, d, e, f = (m[key] for key in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * first + b * second + c * third
    return {
        (0, 0): first / determinant,
        (0, 1): second / determinant,
        (0, 2): third / determinant,
        (1, 1): (a * f - c * c) / determinant,
        (1, 2): (b * c - a * e) / determinant,
        (2, 2): (a * d - b * b) / determinant,
    }


if __name__ == "__main__":
    main()
