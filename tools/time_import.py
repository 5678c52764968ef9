"""How long importing the pack takes, inside ComfyUI and after ComfyUI's own nodes: what it adds to a start.

    python tools/time_import.py [RUNS]

It should stay below 0.2 s. The first run may be slower: Python writes its bytecode then. Standard library only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import comfy_server

SCRIPT = """
import asyncio, os, sys, time
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())
import comfy.options
comfy.options.enable_args_parsing()
import nodes
import importlib.util
pack = sys.stdin.read()
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("the_pack", os.path.join(pack, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
extension = asyncio.run(module.comfy_entrypoint())
for node in asyncio.run(extension.get_node_list()):
    node.GET_SCHEMA()
print("SECONDS", time.perf_counter() - start)
"""


def measure(comfyui: Path) -> float:
    """Seconds of one import in a fresh process."""
    done = subprocess.run(
        [str(comfy_server.find_python(comfyui)), "-c", SCRIPT],
        cwd=comfyui,
        input=str(comfy_server.ROOT),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if "SECONDS" not in done.stdout:
        raise RuntimeError(f"The pack could not be imported:\n{done.stderr[-3000:]}")
    return float(done.stdout.rsplit("SECONDS", 1)[1])


if __name__ == "__main__":
    if why_not := comfy_server.missing_comfyui():
        sys.exit(why_not)
    for version, folder, why_not in comfy_server.find_comfyuis():
        if why_not:
            print(f"ComfyUI {version}: {why_not}")
            continue
        times = [measure(folder) for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)]
        median, best = statistics.median(times), min(times)
        print(f"ComfyUI {version}: importing the pack: median {median:.3f} s, best {best:.3f} s of {len(times)}")
