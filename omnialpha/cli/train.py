"""`python -m omnialpha train cache | vae | measure-vae | transformer | plan`: from a data set to weights."""

from __future__ import annotations

import argparse
import sys

TRAIN_HELP = """\
Training in three steps: `vae` (only for an RGBA VAE of your own), `cache` (encode a data set once), `transformer`.
Each reads a YAML file and writes into --out; the same command goes on where a stopped run was."""

EXAMPLES = """\
examples:
  train cache configs/micro/cache.yaml --out runs/cache
  train transformer configs/micro/transformer.yaml --out runs/micro
  torchrun --nproc-per-node 2 -m omnialpha train transformer configs/micro/transformer.yaml --out runs/micro
  train measure-vae runs/vae/vae --data data/test --size 64 --size 96
  accelerate launch --config_file configs/accelerate/ddp.yaml -m omnialpha train transformer CONFIG --out DIR
Every key of a configuration can be given with --set; docs/training.md explains them."""


MEASURE_HELP = """\
Encodes and decodes held-out pictures and says how much is lost. Of foregrounds: colour where the true alpha shows it,
colour premultiplied, over white and over nine solid colours (PSNR in dB, and mean absolute error), and alpha alone
(mean squared and absolute error). Of composites, which are opaque: colour, and how far alpha is from 1. An RGB VAE is
measured as opaque initialisation makes it."""


def add_commands(commands) -> None:
    """Register `train` below the main command's subparsers."""
    raw = argparse.RawDescriptionHelpFormatter
    train = commands.add_parser(
        "train", help="train a VAE or a transformer", description=TRAIN_HELP, epilog=EXAMPLES, formatter_class=raw
    )
    parts = train.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, function, words in (
        ("cache", _cache, "encode a data set's pictures once"),
        ("vae", _vae, "train an RGBA VAE"),
        ("transformer", _transformer, "train the transformer, whole or as a LoRA"),
    ):
        parser = parts.add_parser(name, help=words, description=words.capitalize() + ".")
        parser.add_argument("config", metavar="CONFIG", help="YAML file; see configs/")
        parser.add_argument("--out", required=True, metavar="DIR", help="folder of the result, new or to go on with")
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of CONFIG")
        if name != "cache":
            parser.add_argument("--threads", type=int, help="CPU threads of this process (default: torch's)")
        parser.set_defaults(command=function)
        if name == "cache":
            parser.add_argument(
                "--share",
                type=_share,
                default=(0, 1),
                metavar="K/N",
                help="make every N-th shard, from the K-th on: for several processes",
            )
    measure = parts.add_parser(
        "measure-vae",
        help="how well a VAE keeps held-out pictures, colour and alpha apart",
        description=MEASURE_HELP,
        formatter_class=raw,
    )
    measure.add_argument("vae", metavar="VAE", help="file or folder of an RGBA or RGB VAE")
    measure.add_argument("--data", required=True, metavar="DATASET", help="data set folder or JSONL file")
    measure.add_argument("--split", default="test", choices=("test", "train", "all"), help="default: test")
    measure.add_argument(
        "--size", action="append", type=_height_by_width, metavar="H[xW]", help="in pixels; repeatable (default: 64)"
    )
    measure.add_argument("--limit", type=int, default=256, metavar="N", help="records at most (default: 256)")
    measure.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    measure.add_argument("--out", metavar="FILE", help="write the numbers as JSON, into a new file")
    measure.set_defaults(command=_measure_vae)
    plan = parts.add_parser("plan", help="memory and arithmetic of a run at full size, without its weights")
    plan.add_argument("config", metavar="CONFIG", help="YAML file of the run")
    plan.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of CONFIG")
    plan.set_defaults(command=_plan)


def _share(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not (k.isdigit() and n.isdigit() and 0 <= int(k) < int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; expected K/N with K below N, such as 0/2")
    return int(k), int(n)


def _cache(args) -> None:
    from tqdm import tqdm

    from ..config import read_config
    from ..train.cache import write_cache
    from ..train.config import CacheConfig

    config = read_config(CacheConfig, args.config, args.set)
    with tqdm(unit="shard", file=sys.stderr) as bar:
        for done, total in write_cache(config, args.out, share=args.share):
            bar.total = total
            bar.update(done - bar.n)


def _vae(args) -> None:
    from ..config import read_config
    from ..train.vae.config import VAEConfig
    from ..train.vae.train import train_vae

    _use_threads(args.threads)
    train_vae(read_config(VAEConfig, args.config, args.set), args.out)


def _measure_vae(args) -> None:
    import json
    from pathlib import Path

    from ..errors import OmniAlphaError
    from ..train.vae.measure import measure_file

    if args.out and Path(args.out).exists():
        raise OmniAlphaError(f"{args.out} exists already; give another --out.")
    _use_threads(args.threads)
    split = None if args.split == "all" else args.split
    found = measure_file(args.vae, args.data, args.size or [(64, 64)], split, args.limit)
    for size, values in found.items():
        print(f"{size} pixels")
        for name, value in values.items():
            print(f"  {name:18} {value:.5g}")
    if args.out:
        from ..files.writing import write_new

        write_new(Path(args.out), lambda file: file.write(f"{json.dumps(found, indent=2)}\n".encode()))


def _height_by_width(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and (width or height).isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected H or HxW, such as 64 or 96x64")
    return int(height), int(width or height)


def _transformer(args) -> None:
    from ..config import read_config
    from ..train.config import TransformerConfig
    from ..train.transformer import train_transformer

    _use_threads(args.threads)
    train_transformer(read_config(TransformerConfig, args.config, args.set), args.out)


def _plan(args) -> None:
    from ..config import read_config
    from ..train.config import TransformerConfig
    from ..train.estimate import describe_full_size

    print(describe_full_size(read_config(TransformerConfig, args.config, args.set)))


def _use_threads(count: int | None) -> None:
    if count:
        import torch

        torch.set_num_threads(count)
