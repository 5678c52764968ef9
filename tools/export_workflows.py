"""Export workflows/*.json to workflows/api/*.json with the real ComfyUI frontend.

    make workflows                                   # all of them
    python tools/export_workflows.py matting.json    # only some
    python tools/export_workflows.py --shots out     # and a screenshot of each, as an artist sees it

The UI files are the source. A workflow that the frontend damages (a missing node, a lost link or value, a red box) is
reported and not exported. Needs ComfyUI and a browser: see comfy_server.py and frontend.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import comfy_server
import frontend

WORKFLOWS = comfy_server.ROOT / "workflows"


def export(paths: list[Path], shots: Path | None) -> int:
    """Export `paths`; return how many of them are damaged."""
    jobs = [{"workflow": path, **({"screenshot": shots / f"{path.stem}.png"} if shots else {})} for path in paths]
    with comfy_server.ComfyServer(model_names=frontend.model_names(paths), other_packs=frontend.OTHER_PACKS) as server:
        results = frontend.drive(server.url, *jobs)
    damaged = 0
    for path, result in zip(paths, results, strict=True):
        if result["problems"]:
            damaged += 1
            print(f"{path.name}: NOT exported", *result["problems"], sep="\n  ")
            continue
        target = WORKFLOWS / "api" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(result["output"], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(result['output'])} nodes exported")
    return damaged


def main() -> int:
    """Read the command line, export, return the exit status."""
    parser = argparse.ArgumentParser(description="Export workflows to API format with the real ComfyUI frontend.")
    parser.add_argument("workflows", nargs="*", help="file names in workflows/ (default: all)")
    parser.add_argument("--shots", type=Path, help="folder for a screenshot of each")
    args = parser.parse_args()
    why_not = comfy_server.missing_comfyui() or frontend.missing_browser()
    if why_not:
        print(f"Cannot export: {why_not}.", file=sys.stderr)
        return 2
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    paths = [WORKFLOWS / name for name in args.workflows] or sorted(WORKFLOWS.glob("*.json"))
    return 1 if export(paths, args.shots) else 0


if __name__ == "__main__":
    sys.exit(main())
