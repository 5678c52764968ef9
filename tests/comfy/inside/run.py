"""Runs checks inside ComfyUI's own Python, without a server.

    python run.py COMFYUI BASE JOB.json

JOB holds what the checks need to know ("pack", "golden", ...) and how to run them: "files", a pattern for those beside
this one; "arguments" for ComfyUI; "simulate", a function of simulate.py. Every `check_*` function of these files runs
under inference mode, as nodes do, and prints a line of JSON: its name, its error if any, what it measured, and the
warnings that were logged since the last one.
"""

import asyncio
import importlib
import importlib.util
import json
import logging
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
MARK = "CHECK "


def main(comfyui: str, base: str, job_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    warnings = start(comfyui, base, job)
    import torch

    for file in sorted(HERE.glob(job.get("files", "checks_*.py"))):
        module = importlib.import_module(file.stem)
        for name in [name for name in vars(module) if name.startswith("check_")]:
            error, measured = None, None
            try:
                with torch.inference_mode():
                    measured = getattr(module, name)()
            except Exception:
                error = traceback.format_exc()
            name = f"{file.stem.removeprefix('checks_')}.{name}"
            result = {"name": name, "error": error, "measured": measured, "warnings": warnings.taken()}
            print(MARK + json.dumps(result), flush=True)


class Warnings(logging.Handler):
    """Keeps what is logged as a warning or worse."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record.getMessage())

    def taken(self) -> list[str]:
        kept, self.kept = self.kept, []
        return kept


def start(comfyui: str, base: str, job: dict) -> Warnings:
    """Makes this process a ComfyUI without a server, with the pack in it; `inside` knows it afterwards.

    Returns:
        What is logged as a warning from now on.
    """
    os.chdir(comfyui)
    sys.argv = ["main.py", *job.get("arguments", []), "--base-directory", base, "--preview-method", "auto"]
    sys.path[:0] = [comfyui, str(HERE)]
    import comfy.options

    comfy.options.enable_args_parsing()
    from comfy.cli_args import args

    args.cpu = True  # not among the arguments, where --lowvram and --novram exclude it
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    import inside
    import utils.install_util  # noqa: F401 - main.py imports it before a module of that name gets in the way

    import nodes  # noqa: F401 - ComfyUI has its own nodes loaded when a pack's turn comes

    inside.job.update(job)
    if simulated := job.get("simulate"):
        getattr(importlib.import_module("simulate"), simulated)()
    before = set(sys.modules)
    inside.pack = import_pack(inside.job["pack"])
    inside.imported.update(set(sys.modules) - before)
    extension = asyncio.run(inside.pack.comfy_entrypoint())
    inside.nodes.update({node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())})
    return warnings


def import_pack(folder: str):
    """The pack as ComfyUI imports it, under a name that no source file mentions."""
    path = Path(folder)
    spec = importlib.util.spec_from_file_location("/some place/Omni Alpha-main", path / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
