"""`python -m omnialpha data build | filter | show`: make a data set, throw out what is wrong, look at it."""

from __future__ import annotations

import argparse
import json
import os
import sys

BUILD_HELP = """\
Puts RGBA objects on backgrounds and writes a data set of triplets: foreground, background, composite, and captions.
The same seed gives the same files, however many workers there are. A stopped build goes on where it was."""

BUILD_EXAMPLES = """\
examples:
  data build --objects my/cutouts --backgrounds my/photos --count 2000 --size 512 --out data/mine
  data build configs/micro/triplets.yaml --packages node_modules --out data/triplets
Every key of a configuration can be given with --set; docs/data.md explains them."""
SHORTCUTS = ("objects", "backgrounds", "count", "size", "seed", "split")

FILTER_HELP = """\
Looks at every record and rejects, with a reason, what would teach something wrong: unreadable or missing pictures,
sizes that differ, empty or full alpha, a composite that is not foreground over background, soft edges that are claimed
but not there, near-duplicates, missing captions. Nothing is deleted: rejected.jsonl lists what training leaves out."""

SHOW_HELP = """\
Counts what a data set holds and draws a contact sheet of its tasks with their guides, as training will see them."""


def add_commands(commands) -> None:
    """Register `data` below the main command's subparsers."""
    raw = argparse.RawDescriptionHelpFormatter
    data = commands.add_parser("data", help="build, filter and look at data sets", description="Data sets of layers.")
    parts = data.add_subparsers(title="commands", required=True, metavar="COMMAND")

    build = parts.add_parser(
        "build", help="make triplets", description=BUILD_HELP, epilog=BUILD_EXAMPLES, formatter_class=raw
    )
    build.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file; see configs/micro")
    build.add_argument("--out", required=True, metavar="DIR", help="folder of the data set")
    build.add_argument("--objects", metavar="DIR", help="RGBA pictures, or a source: fluent-emoji, glyphs")
    build.add_argument("--backgrounds", metavar="DIR", help="pictures, or photographs, odd-photographs, textures")
    build.add_argument("--count", type=int, metavar="N", help="records to make")
    build.add_argument("--size", type=int, metavar="PX", help="longer side of the pictures")
    build.add_argument("--seed", type=int, metavar="S", help="another seed, another data set")
    build.add_argument("--split", choices=("train", "test", "all"), help="which objects and backgrounds to use")
    build.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of CONFIG")
    build.add_argument("--packages", metavar="DIR", help="node_modules folder with the emoji packages")
    build.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    build.set_defaults(command=_build)

    check = parts.add_parser(
        "filter", help="reject what is wrong, and say why", description=FILTER_HELP, formatter_class=raw
    )
    check.add_argument("dataset", metavar="DIR", help="folder of the data set")
    check.add_argument(
        "--recomposition",
        type=float,
        default=2.0,
        metavar="E",
        help="largest mean error of foreground over background, in 1/255 (%(default)s)",
    )
    check.add_argument(
        "--soft-share",
        type=float,
        default=0.02,
        metavar="S",
        help="least share of half-transparent pixels of a soft object (%(default)s)",
    )
    check.add_argument(
        "--visible",
        type=float,
        default=0.005,
        metavar="S",
        help="least share of the canvas that shows the object (%(default)s)",
    )
    check.add_argument(
        "--duplicate-bits",
        type=int,
        default=2,
        metavar="N",
        help="most bits of 128 that differ in hashes of duplicates, -1: off (%(default)s)",
    )
    check.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    check.set_defaults(command=_filter)

    show = parts.add_parser("show", help="count, and draw a contact sheet", description=SHOW_HELP, formatter_class=raw)
    show.add_argument("dataset", metavar="DIR|JSONL", help="folder of the data set, or a supervised list")
    show.add_argument("--images", metavar="DIR", help="folder that the paths of a supervised list are relative to")
    show.add_argument("--sheet", metavar="PNG", help="where to draw the contact sheet (default: no sheet)")
    show.add_argument("--seed", type=int, default=0, help="which records and guides the sheet shows (%(default)s)")
    show.set_defaults(command=_show)


def _build(args) -> None:
    from pathlib import Path

    from tqdm import tqdm

    from ..config import read_config
    from ..data.build import build
    from ..data.config import BuildConfig
    from ..errors import OmniAlphaError

    given = [f"{key}={json.dumps(value)}" for key in SHORTCUTS if (value := getattr(args, key)) is not None]
    if not args.config and not any(pair.startswith("objects=") for pair in (*args.set, *given)):
        raise OmniAlphaError("Say what to build: a CONFIG file, or at least --objects FOLDER.")
    config = read_config(BuildConfig, args.config, [*args.set, *given])
    with tqdm(total=config.blocks, unit="block", file=sys.stderr) as bar:
        for done in build(config, args.out, workers=max(1, args.workers or 1), packages=args.packages):
            bar.update(done - bar.n)
    print(f"{config.blocks * config.grid**2} records in {args.out}")
    problems = Path(args.out, "problems.jsonl")
    if problems.is_file():
        count = len(problems.read_text(encoding="utf-8").splitlines())
        print(f"{count} pictures could not be used and were left out; {problems} names them")


def _filter(args) -> None:
    from tqdm import tqdm

    from ..data.filter import FilterLimits, filter_data

    limits = FilterLimits(args.recomposition / 255, args.soft_share, args.duplicate_bits, args.visible)
    with tqdm(unit="record", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = filter_data(args.dataset, limits, workers=max(1, args.workers or 1), progress=progress)
    print(f"{report['kept']} kept, {report['rejected']} rejected; see {args.dataset}/report.json and report.png")
    for reason, count in report["reasons"].items():
        print(f"  {count:6}  {reason}")


def _show(args) -> None:
    from ..data.show import describe, draw_tasks

    print(describe(args.dataset, args.images))
    if args.sheet:
        draw_tasks(args.dataset, args.sheet, args.images, args.seed)
        print(f"sheet: {args.sheet}")
