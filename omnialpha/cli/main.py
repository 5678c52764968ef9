"""The command line: `python -m omnialpha run | tasks | inspect | convert-vae | demo`, and more, a module each.

Nothing heavy is imported here, so that `--help` and `tasks` answer at once. Whatever a user can cause ends in one
sentence on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import OmniAlphaError, OmniAlphaWarning
from ..tasks import ROLES, TASKS, by_family
from . import batch, data, evaluate, layers, train
from .arguments import add_model, add_pixels, width_by_height

DESCRIPTION = """\
OmniAlpha works on RGBA layers: it draws them from text, cuts objects out, removes them, completes pictures and takes
pictures apart into layers. A small trained model, "micro", is built in; nothing is ever downloaded."""

EXAMPLES = """\
examples:
  python -m omnialpha demo                                   see what it does, on the built-in model
  python -m omnialpha tasks                                  the 21 tasks and what each one takes
  python -m omnialpha run matting_auto --image photo.png     cut the main object out
  python -m omnialpha inspect model.safetensors              what is this file?
`python -m omnialpha COMMAND --help` explains a command."""

RUN_HELP = """\
Runs a task and writes one RGBA PNG per layer, back to front, into a new folder, or one layered file with --format. The
settings are kept in each PNG's text chunk "omnialpha", or in the layered file's metadata. Nothing is ever overwritten:
a folder that has something in it gets a number."""

RUN_EXAMPLES = """\
examples:
  run decomposition_auto --image photo.png                       background and object as two layers
  run matting_text --image photo.png --text "a red balloon"      cut out what your words name
  run removal_mask --image photo.png --guide mask.png            remove what is white in the mask
  run text_to_rgba --text "a slice of cake" --seed 7             draw with transparency
  run --instruction "Cut out both cats." --image cats.png --targets 2     say it in your own words
The public checkpoint: --checkpoint Qwen-Image-Edit-2509 --vae rgba_vae --lora pytorch_lora_weights.safetensors

guides: white = object, black = background, grey (trimaps only) = unknown; as large as the picture.
sizes: pictures are scaled to what the checkpoint was trained with and the layers come back in your picture's size."""

TASKS_HELP = """\
Lists the 21 tasks in their five families: which layers go in, which come out (back to front), whether text takes
part. Every checkpoint takes every task, but it does well only what it was trained on; --checkpoint marks those."""

INSPECT_HELP = """\
Says what a weight file or a checkpoint folder is, without loading it: kind, key layout, channels, dtype, and for
folders the tasks, the sizes and whatever is missing. A LoRA is compared with the transformer of --checkpoint."""

CONVERT_HELP = """\
Writes an RGBA VAE in the key layout that a program wants: "wan" for ComfyUI's own loader, "diffusers" for diffusers.
With --opaque, a Qwen-Image VAE for RGB becomes one for RGBA (opaque initialisation): it encodes as before and decodes
alpha 1 everywhere, the starting point for training."""

DEMO_HELP = """\
Runs all five families on held-out pictures that the built-in model has never seen, writes the layers and a contact
sheet (input | layers | recomposed), and prints each task's error against the known truth."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0, 2 for what the user can mend, 1 for a bug, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    # Local files only, and none of the libraries' own bars and remarks between ours.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", OmniAlphaWarning)
        warnings.showwarning = _show_warning
        try:
            return args.command(args) or 0
        except OmniAlphaError as error:
            return _fail(str(error), 2)
        except KeyboardInterrupt:
            return _fail("Stopped. Nothing half-finished was kept.", 130)
        except BrokenPipeError:  # the reader of our output went away, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:
            if args.debug:
                raise
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                return _fail("Not enough memory. Use a smaller --size, --offload, or another --device.", 2)
            return _fail(f"This is a bug: {type(error).__name__}: {error}. Run again with --debug to report it.", 1)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="omnialpha", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"omnialpha {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(_command(commands, "run", _run, "run a task on your pictures", RUN_HELP, epilog=RUN_EXAMPLES))

    tasks = _command(commands, "tasks", _tasks, "list the tasks", TASKS_HELP)
    tasks.add_argument("--checkpoint", metavar="PATH", help="mark the tasks this checkpoint was trained on")
    tasks.add_argument("--json", action="store_true", help="for programs")

    inspect = _command(commands, "inspect", _inspect, "say what a file or folder is", INSPECT_HELP)
    inspect.add_argument("path", metavar="FILE|FOLDER", help='safetensors file, checkpoint folder, or "micro"')
    inspect.add_argument("--checkpoint", metavar="PATH", help="whose transformer a LoRA is compared with")
    inspect.add_argument("--json", action="store_true", help="for programs")

    convert = _command(commands, "convert-vae", _convert, "convert a VAE", CONVERT_HELP)
    convert.add_argument("source", metavar="IN", help="VAE file or folder, either key layout")
    convert.add_argument("target", metavar="OUT", help="the .safetensors file to write; must not exist")
    convert.add_argument("--layout", choices=("wan", "diffusers"), help="key layout (default: as it is)")
    convert.add_argument("--opaque", action="store_true", help="make an RGBA VAE from an RGB one")

    demo = _command(commands, "demo", _demo, "see what it does", DEMO_HELP)
    demo.add_argument("--out", metavar="DIR", default="out/demo", help="new folder for the results (%(default)s)")
    demo.add_argument("--checkpoint", metavar="PATH", default="micro", help="another checkpoint (default: micro)")
    demo.add_argument("--seed", type=int, default=0, help="another seed, other noise (%(default)s)")

    for module in (batch, layers, data, train, evaluate):
        module.add_commands(commands)
    return parser


def _command(commands, name: str, function, short: str, text: str, epilog: str | None = None):
    parser = commands.add_parser(
        name, help=short, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=function)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("task", metavar="TASK", nargs="?", help="task id, see `tasks`; leave out with --instruction")
    what = run.add_argument_group("what to work on")
    what.add_argument("--image", metavar="FILE", action="append", default=[], help="input layer; several in order")
    what.add_argument("--guide", metavar="FILE", help="trimap or mask, as large as the image")
    what.add_argument(
        "--guide-polarity",
        choices=("white", "black", "alpha"),
        default="white",
        help="where the object is in the guide: white, black, or opaque (%(default)s)",
    )
    what.add_argument("--text", default="", help="what the layer shows, for tasks that take text")
    what.add_argument("--instruction", help="what the model is told, in place of the task's own words")
    what.add_argument("--negative", default="", help="what guidance steers away from")
    what.add_argument("--targets", type=int, metavar="N", help="layers to generate, with --instruction alone (1)")

    model = add_model(run)
    model.add_argument("--offload", action="store_true", help="keep on the GPU only the part that is working")

    how = run.add_argument_group("how")
    how.add_argument("--seed", type=int, default=0, help="the same seed gives the same layers (%(default)s)")
    how.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the checkpoint's)")
    how.add_argument(
        "--guidance", type=float, metavar="S", help="1 = off and twice as fast (default: the checkpoint's)"
    )
    how.add_argument(
        "--size", type=width_by_height, metavar="WxH", help="pixels to work at (default: the checkpoint's budget)"
    )
    how.add_argument(
        "--fit",
        choices=("scale", "pad", "exact"),
        default="scale",
        help="stretch to the working size, pad, or insist on it (%(default)s)",
    )
    add_pixels(how)
    how.add_argument("--snap-alpha", action="store_true", help="make nearly opaque and nearly clear pixels exactly so")
    how.add_argument("--keep-hidden", action="store_true", help="keep colours that lie hidden under alpha 0 of inputs")
    run.add_argument("--out", metavar="DIR", help="new folder for the layers (default: out/TASK)")
    run.add_argument(
        "--format",
        choices=("png", "png16", "psd", "ora"),
        default="png",
        help="a PNG per layer of 8 or 16 bits, or one layered file (%(default)s)",
    )


def _run(args) -> None:
    from .run import run

    run(args)


def _inspect(args) -> None:
    from .inspect import describe, inspect

    report = inspect(args.path, args.checkpoint)
    print(json.dumps(report, indent=2, ensure_ascii=False) if args.json else describe(report))


def _convert(args) -> None:
    from .convert_vae import convert_vae

    print(convert_vae(args.source, args.target, args.layout, args.opaque))


def _demo(args) -> None:
    from .demo import demo

    demo(args.out, args.checkpoint, args.seed)


def _tasks(args) -> None:
    trained = {}
    if args.checkpoint:
        from ..checkpoint.folder import Checkpoint

        settings = Checkpoint(args.checkpoint).settings
        trained = {task: settings.trained(task) for task in TASKS}
    if args.json:
        fields = ("id", "family", "title", "inputs", "targets", "text", "instruction", "help")
        rows = [{name: getattr(task, name) for name in fields} for task in TASKS.values()]
        extra = [{"trained": trained[row["id"]]} if trained else {} for row in rows]
        print(json.dumps([row | more for row, more in zip(rows, extra)], indent=2, ensure_ascii=False))
        return
    marks: dict[bool | None, str] = {True: "  trained", False: "  not trained"}
    for family, tasks in by_family().items():
        print(f"\n{family.capitalize()}")
        for task in tasks:
            takes = [*task.inputs] + ([] if task.text == "none" else ["text" if task.needs_text else "(text)"])
            arrow = f"{' + '.join(takes)} -> {' + '.join(task.targets)}"
            mark = marks.get(trained.get(task.id), "")
            print(f"  {task.id:27}{arrow:52}{mark}".rstrip())
            print(f"      {task.help}")
    print("\n(text) is optional. The first picture is --image, the second one --guide:")
    for role, words in ROLES.items():
        print(f"  {role:13}{words}")


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"omnialpha: note: {message}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    print(f"omnialpha: {message}", file=sys.stderr)
    return code
