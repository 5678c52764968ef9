"""`python -m omnialpha evaluate`: how far a checkpoint, or pictures made elsewhere, are from the truth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .arguments import add_model, add_pixels, width_by_height

HELP = """\
Runs a checkpoint's tasks on held-out records and measures the layers against the known truth, with baselines in the
same run: copying the input, all opaque, and closed-form and KNN matting given a trimap. Writes results.json,
results.csv, table.md, plots and contact sheets into --out. Records that cannot be used are named in problems.json and
left out. The same command goes on where a stopped run was; a larger --count or more --task adds to it.
With --predicted and --truth it compares two folders of pictures instead; no model is run."""

EXAMPLES = """\
examples:
  evaluate data/test --out runs/micro-test                            the built-in model, every task, all records
  evaluate data/test --pixels redraw --out runs/micro-bare            the model's own layers, nothing of the picture's
  evaluate data/test --task matting_auto --count 48 --out runs/auto   one task on 48 records
  evaluate list.jsonl --images pictures --checkpoint runs/a/checkpoint --out runs/a/test
  evaluate --predicted mattes --truth alpha --trimaps trimaps --mattes --out runs/mattes
docs/evaluation.md defines the measures."""


def add_commands(commands) -> None:
    """Register `evaluate` below the main command's subparsers."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a checkpoint, or pictures, against the truth",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="?", metavar="DATASET", help="data set folder or JSONL file")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the results, new or to go on with")
    what = parser.add_argument_group("what to measure on")
    what.add_argument("--images", metavar="DIR", help="folder that the paths of a JSONL file are relative to")
    what.add_argument("--split", default="test", choices=("test", "train", "all"), help="records to take (%(default)s)")
    what.add_argument("--count", type=int, metavar="N", help="the first N records (default: all)")
    what.add_argument("--task", action="append", metavar="TASK", help="repeatable (default: all the data can serve)")
    what.add_argument("--predicted", metavar="DIR", help="pictures to compare with those of --truth, by name")
    what.add_argument("--truth", metavar="DIR", help="the true pictures")
    what.add_argument("--trimaps", metavar="DIR", help="their trimaps, to measure the unknown region besides")
    what.add_argument("--mattes", action="store_true", help="the pictures are alpha mattes in grey")
    model = add_model(parser)
    model.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    how = parser.add_argument_group("how")
    how.add_argument("--seed", type=int, default=0, help="of guides and noise (%(default)s)")
    how.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the checkpoint's, by task)")
    how.add_argument("--guidance", type=float, metavar="S", help="guidance (default: the checkpoint's, by task)")
    how.add_argument(
        "--size", type=width_by_height, metavar="WxH", help="pixels to work at (default: the checkpoint's budget)"
    )
    add_pixels(how)
    how.add_argument(
        "--samples",
        type=int,
        default=2,
        metavar="N",
        help="answers per record where the input leaves the answer open (%(default)s)",
    )
    how.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True, help="measure them as well")
    how.add_argument(
        "--refined", action="store_true", help="measure objects refined with the task's trimap, or their own, as well"
    )
    how.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="draw plots and sheets")
    how.add_argument("--keep", type=int, default=8, metavar="N", help="records per task on a sheet (%(default)s)")
    parser.set_defaults(command=_evaluate)


def _evaluate(args) -> None:
    from ..errors import OmniAlphaError

    folders = args.predicted or args.truth
    if bool(args.data) == bool(folders) or (folders and not (args.predicted and args.truth)):
        raise OmniAlphaError("Give a data set, or two folders with --predicted and --truth.")
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    if folders:
        _compare(args)
    else:
        _measure(args)


def _compare(args) -> None:
    from ..evaluation.folders import compare_folders
    from ..evaluation.plots import draw_plots
    from ..evaluation.report import open_folder, write_report

    config = {name: getattr(args, name) for name in ("predicted", "truth", "trimaps", "mattes")}
    results, alone = compare_folders(args.predicted, args.truth, args.trimaps, mattes=args.mattes)
    open_folder(Path(args.out), config)
    write_report(Path(args.out), results, config, alone)
    if args.pictures:
        draw_plots(Path(args.out), results)
    _say(results.table(every=True), len(alone) + len(results.problems()), args.out)


def _measure(args) -> None:
    from dataclasses import asdict

    from tqdm import tqdm

    from ..checkpoint.folder import Checkpoint
    from ..data.records import read_records
    from ..device import find_device
    from ..errors import OmniAlphaError
    from ..evaluation.report import fingerprint, open_folder, write_report
    from ..evaluation.run import check_options, check_tasks, evaluate
    from ..layers.looking import settled_look
    from ..pipeline import load

    options = {name: getattr(args, name) for name in ("steps", "guidance", "size")}
    check_options(samples=args.samples, count=args.count, keep=args.keep, **options)
    options |= {"pixels": args.pixels, "look": settled_look(args.pixels, args.look)}
    out, device = Path(args.out), find_device(args.device)
    checkpoint = Checkpoint(args.checkpoint, vae=args.vae, lora=args.lora).check()
    reading = read_records(args.data, args.images)
    records = reading.of_split(None if args.split == "all" else args.split)[: args.count]
    if not records:
        raise OmniAlphaError(f"{args.data} has no {args.split} record. Give another --split, or --split all.")
    tasks, settings = check_tasks(records, args.task), checkpoint.settings
    lines = Path(args.data, "triplets.jsonl") if Path(args.data).is_dir() else args.data
    config = {
        "checkpoint": checkpoint.folder.name,
        "weights": fingerprint(checkpoint.folder, args.vae, args.lora),
        "lora_scale": args.lora_scale,
        "data": Path(args.data).name,
        "records_sha256": fingerprint(lines),
        "seed": args.seed,
        "samples": args.samples,
        **options,
        "baselines": args.baselines,
        "refined": args.refined,
        "keep": args.keep,
    }
    open_folder(out, config)
    if unlearnt := [task for task in tasks if settings.trained(task) is False]:
        print(f"omnialpha: note: this checkpoint was not trained on {', '.join(unlearnt)}.", file=sys.stderr)
    with tqdm(unit="answer", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        results = evaluate(
            lambda: load(checkpoint, device, lora_scale=args.lora_scale),
            records,
            tasks,
            seed=args.seed,
            baselines=args.baselines,
            refined=args.refined,
            samples=args.samples,
            out=out,
            keep=args.keep,
            progress=progress,
            **options,
        )
    write_report(out, results, config, [asdict(problem) for problem in reading.problems])
    if args.pictures:
        from ..evaluation.plots import draw_plots, draw_sheets

        draw_plots(out, results)
        draw_sheets(out, records[: args.keep], results, args.seed)
    _say(results.table(), len(reading.problems) + len(results.problems()), args.out)


def _say(table: str, problems: int, out: str) -> None:
    print(table)
    if problems:
        print(f"\n{problems} problems; {Path(out, 'problems.json')} names them")
    print(f"\nevery measure: {Path(out, 'table.md')}")
