"""Rules of the repository itself that a machine can check. Each failure names the file and what to do."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import comfy_server
import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFY = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server", "execution"}
HEAVY = {"diffusers", "transformers", "peft", "accelerate", "skimage", "scipy"}
# package -> what it is imported as, where the two differ
IMPORT_NAME = {
    "pillow": "PIL",
    "scikit-image": "skimage",
    "pyyaml": "yaml",
    "psd-tools": "psd_tools",
    "pypng": "png",
    "websocket-client": "websocket",
    "universal-pathlib": "upath",
}
# Rooms that inference never enters, and the file that lists what they may use beside requirements.txt.
EXTRAS = [
    ({"train", "data", "evaluation", "config.py", "metrics.py"}, "requirements-train.txt"),
    ({"batch"}, "requirements-batch.txt"),
    ({"ray_engine.py", "ray_worker.py", "addresses.py"}, "requirements-ray.txt"),
]


@lru_cache
def tracked() -> tuple[Path, ...]:
    """Every file of the repository: those git knows, or all but the ignored where this is no git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return tuple(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())
    hidden = {".git", ".venv", "node_modules", "__pycache__", "out", "runs", "data"}
    return tuple(path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.relative_to(ROOT).parts))


def python_files(*folders: str) -> list[Path]:
    """Tracked Python files, all or those below some top folders (a file name counts as one)."""
    files = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in files if not folders or path.relative_to(ROOT).parts[0] in folders]


def text_files() -> list[tuple[Path, str]]:
    """Tracked files that people wrote, with their text."""
    kinds = {".py", ".md", ".toml", ".txt", ".json", ".mjs", ".js", ".yml", ".yaml", ""}
    found = [path for path in tracked() if path.suffix in kinds and path.stat().st_size < 400_000]
    return [(path, path.read_text(encoding="utf-8")) for path in found]


def imports(path: Path, top_level_only: bool = False) -> list[tuple[int, int, str]]:
    """(line, relative level, module) of every import statement of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for node in tree.body} if top_level_only else None
    rows = []
    for node in ast.walk(tree):
        if inside is not None and id(node) not in inside:
            continue
        if isinstance(node, ast.Import):
            rows += [(node.lineno, 0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            rows.append((node.lineno, node.level, node.module or ""))
    return rows


def places(pattern: str) -> list[str]:
    """Where the text of the repository matches a regular expression."""
    hits = [(path, text, match) for path, text in text_files() for match in re.finditer(pattern, text)]
    return [show(path, text[: match.start()].count("\n") + 1) for path, text, match in hits]


def show(path: Path, line: int | None = None) -> str:
    """How a place is named in a failure."""
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line else "")


def requirements(name: str) -> dict[str, str]:
    """Package -> version specifier of a requirements file, comments and nested files left out."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    form = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?\s*([^;]*)(?:;.*)?")
    parts = [form.fullmatch(line) for line in lines if line and line[0] != "-"]
    return {match[1].lower(): match[2].strip() for match in parts}


def test_python_files_are_short():
    long = {show(path): n for path in python_files() if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long, f"split these, 400 lines is the most: {long}"


def test_no_machine_paths():
    found = places(r"/(?:root|work|home|Users|opt)/[A-Za-z0-9_.]")
    assert not found, f"a path that exists on one machine only: {found}"


def test_nothing_is_left_unfinished():
    found = places(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")
    assert not found, f"finish or remove: {found}"


def test_weights_are_safetensors_only():
    pickles = [show(path) for path in tracked() if path.suffix in {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}]
    assert not pickles, f"pickles run code when they are opened; store safetensors: {pickles}"


def test_micro_is_small():
    size = sum(path.stat().st_size for path in tracked() if path.is_relative_to(ROOT / "omnialpha/micro"))
    assert size <= 30e6, f"omnialpha/micro holds {size / 1e6:.1f} MB, 30 MB is the most"


def test_requirements_are_lower_bounds():
    files = ("requirements.txt", *(name for _, name in EXTRAS))
    listed = {name: spec for file in files for name, spec in requirements(file).items()}
    bad = {name: spec for name, spec in listed.items() if not re.fullmatch(r">=[\d.]+", spec)}
    assert not bad, f"requirements.txt goes into artists' environments, so lower bounds only: {bad}"


def test_development_never_takes_a_cuda_build():
    text = (ROOT / "constraints-dev.txt").read_text()
    assert re.search(r'^torch==[\d.]+\+cpu; sys_platform == "linux"$', text, re.M)


PART_OF = {"transformers": "tokenizers"}  # what a listed package always brings, and training uses by itself


def test_requirements_cover_what_is_imported():
    names = lambda file: {IMPORT_NAME.get(name, name) for name in requirements(file)}  # noqa: E731
    missing = {}
    for path in python_files("omnialpha"):
        known = names("requirements.txt") | set(sys.stdlib_module_names) | {"_typeshed"}  # for type checkers alone
        for rooms, file in EXTRAS:
            if rooms & set(path.relative_to(ROOT).parts):
                known |= names(file) | set(PART_OF.values())
        for line, level, module in imports(path):
            if level == 0 and module.split(".")[0] not in known:
                missing[show(path, line)] = module
    assert not missing, f"imported but not in requirements.txt (or the file that EXTRAS names for the room): {missing}"


def test_the_library_never_imports_comfyui():
    wrong = {
        show(path, line): module
        for path in python_files("omnialpha")
        for line, level, module in imports(path)
        if (level == 0 and module.split(".")[0] in COMFY) or (level >= 2 and module.split(".")[0] == "nodes")
    }
    assert not wrong, f"imports go nodes -> omnialpha -> torch, never back: {wrong}"


def test_the_pack_imports_itself_relatively():
    """In custom_nodes the pack's folder has any name, so an absolute import finds nothing, or another pack."""
    wrong = {
        show(path, line): module
        for path in python_files("omnialpha", "nodes", "__init__.py")
        for line, level, module in imports(path)
        if level == 0 and module.split(".")[0] == "omnialpha"
    }
    assert not wrong, f"import relatively: {wrong}"
    edits = [show(path) for path in python_files("omnialpha", "nodes", "__init__.py") if "sys.path" in path.read_text()]
    assert not edits, f"nothing edits sys.path: {edits}"


def test_the_nodes_need_no_diffusers():
    wrong = {
        show(path, line): module
        for path in python_files("nodes", "__init__.py")
        for line, level, module in imports(path)
        if level == 0 and module.split(".")[0] in HEAVY - {"transformers"}
    }
    assert not wrong, f"inside ComfyUI the model runs on ComfyUI's own classes: {wrong}"


def test_importing_the_library_is_light():
    """The nodes import these at ComfyUI's start-up; heavy packages wait until something needs them."""
    rooms = [
        "layers.compositing",
        "model.rope",
        "layers.sequence",
        "model.sampling",
        "tasks",
        "checkpoint.settings",
        "checkpoint.weights",
        "model.vae",
        "model.text",
    ]
    code = f"""import importlib, sys
for name in {rooms!r}: importlib.import_module("omnialpha." + name)
print(sorted({HEAVY!r} & {{module.split(".")[0] for module in sys.modules}}))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"imported at start-up: {done.stdout.strip()}; move these into the functions"


def test_tests_are_not_a_package():
    found = [show(path) for path in tracked() if path.name == "__init__.py" and path.is_relative_to(ROOT / "tests")]
    assert not found, f"with it pytest would import the node pack as the parent package: {found}"


def test_project_metadata():
    tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    comfy = project["tool"]["comfy"]
    assert (project["project"]["name"], project["project"]["license"]) == ("omnialpha", "Apache-2.0")
    version = re.search(r'__version__ = "(.+)"', (ROOT / "omnialpha/__init__.py").read_text())[1]
    assert project["project"]["version"] == version
    assert comfy["PublisherId"] and comfy["DisplayName"] and comfy["requires-comfyui"] == ">=0.8.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence


def test_everybody_names_the_tested_comfyuis():
    """What the tests run on, what the pack asks for, and what its pages and its refusal promise."""
    oldest, *_ = tested = list(comfy_server.TESTED)
    pack = ast.parse((ROOT / "__init__.py").read_text())
    stated = {node.targets[0].id: ast.literal_eval(node.value) for node in pack.body if _is_constant(node)}
    assert list(stated["TESTED"]) == tested and ".".join(map(str, stated["MINIMUM"])) == oldest
    assert f'requires-comfyui = ">={oldest}"' in (ROOT / "pyproject.toml").read_text()
    for name in ("README.md", "docs/headless.md", "tests/test_old_comfyui.py"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert all(version in text for version in tested), name


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").isupper()


def test_readme_and_ci_say_the_same_as_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    for name, text in (("README.md", readme), (".ci/run", ci)):
        used = set(re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", text, re.M)) | set(re.findall(r"`make ([a-z-]+)`", text))
        assert {"test"} <= used, f"{name} does not call `make test`"
        assert used <= targets, f"{name} names targets the Makefile lacks: {used - targets}"
    assert "make demo" in readme


@pytest.mark.parametrize("page", [path for path in tracked() if path.suffix == ".md"], ids=show)
def test_links_between_files_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|href)="([^"#]+)', text)
    # The frontend resolves what a help page shows against web/docs, whichever folder the page is in.
    base = ROOT / "web/docs" if page.is_relative_to(ROOT / "web/docs") else page.parent
    dead = [link for link in links if "://" not in link and not (base / link).exists()]
    assert not dead, f"{show(page)} points at nothing: {dead}"


WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


def test_every_family_has_a_workflow():
    names = " ".join(path.stem for path in WORKFLOWS)
    for family in ("generation", "completion", "matting", "removal", "decomposition", "public"):
        assert family in names, f"workflows/ has none for {family}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_is_made_for_reading(path: Path):
    graph = json.loads(path.read_text(encoding="utf-8"))
    assert graph["groups"], "group the nodes, so that an artist sees the steps"
    assert any(node["type"] in ("MarkdownNote", "Note") for node in graph["nodes"]), "add a note that says what it does"
    ours = [node for node in graph["nodes"] if node["type"].startswith("OmniAlpha")]
    assert ours, "uses none of this pack's nodes"
    pictures = {node["widgets_values"][0] for node in graph["nodes"] if node["type"].startswith("LoadImage")}
    missing = {name for name in pictures if not (path.parent / "inputs" / name).is_file()}
    assert not missing, f"put these into workflows/inputs: {missing}"
    assert (path.parent / "api" / path.name).is_file(), "export it: make workflows"


def test_every_export_has_its_workflow():
    orphans = {p.name for p in (ROOT / "workflows/api").glob("*.json")} - {p.name for p in WORKFLOWS}
    assert not orphans, f"workflows/api holds exports of workflows that are gone: {orphans}"


# Which rooms a room may import; what is in none of them is a file of the ground floor, which everybody may use.
GROUND = {"checks", "config", "device", "errors", "json_files", "metrics", "progress", "tasks"}
GROUND_MAY = {"metrics": {"layers"}}
BELOW = {
    "checkpoint": set(),
    "layers": {"checkpoint"},
    "files": {"layers", "checkpoint"},
    "model": {"layers", "checkpoint"},
}
BELOW["request"] = {"model", "files", *BELOW["model"], *BELOW["files"]}
BELOW["pipeline"] = {"request", *BELOW["request"]}
BESIDE = {
    "batch": set(),
    "data": set(),
    "train": {"data"},
    "evaluation": {"data"},
}
ROOMS = BELOW | {room: {"pipeline", *BELOW["pipeline"], *beside} for room, beside in BESIDE.items()}
ROOMS["cli"] = set(ROOMS)
ROOMS["__main__"] = {"cli"}


@lru_cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of everything in the library and the nodes."""
    files = python_files("omnialpha", "nodes")
    names = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


@lru_cache
def arrows() -> tuple[tuple[str, str, str], ...]:
    """(module, imported module, imported name or "") of every relative import, lazy ones too."""
    rows = []
    for name, path in modules().items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1] + (node.module or "").split(".") * bool(node.module)
                for alias in node.names:
                    full = ".".join([*base, alias.name])
                    rows.append((name, full, "") if full in modules() else (name, ".".join(base), alias.name))
    return tuple(rows)


def room(name: str) -> str:
    """The room of a module: its folder, or the module itself; "" for the library's own face."""
    parts = name.split(".")
    return parts[0] if parts[0] == "nodes" else parts[1] if len(parts) > 1 else ""


def test_imports_go_down_the_house():
    wrong = {}
    for source, target, _ in arrows():
        above, below = room(source), room(target)
        if above in ("nodes", below) or below in (*GROUND, ""):
            continue
        if below not in (GROUND_MAY if above in GROUND else ROOMS).get(above, ()):
            wrong[source] = target
    assert not wrong, f"cli -> pipeline -> request -> model, files -> layers -> checkpoint, checks; see ROOMS: {wrong}"
    known = {*GROUND, *ROOMS, "nodes", "", "__init__", "__main__"}
    homeless = [name for name in modules() if room(name) not in known]
    assert not homeless, f"put these into a room, or name them in GROUND: {homeless}"


def test_nodes_stay_out_of_what_stands_beside():
    wrong = {source: target for source, target, _ in arrows() if room(source) == "nodes" and room(target) in BESIDE}
    assert not wrong, f"nodes need the method alone: {wrong}"


def test_no_circles():
    """Where leaves are taken away again and again, circles are what is left."""
    graph = {name: {target for source, target, _ in arrows() if source == name} for name in modules()}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"these import each other, or what does: {sorted(graph)}"


def test_a_name_has_one_door():
    """Names are imported from where they are defined; only the library's face offers them a second time."""
    own = {}
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own[name] = {
            node.id
            for top in tree.body
            for node in ast.walk(top)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        own[name] |= {top.name for top in tree.body if hasattr(top, "name")}
    others = [(source, target, name) for source, target, name in arrows() if name and name not in own[target]]
    assert not others, f"import these from their own module: {others}"
    faces = [show(path) for name, path in modules().items() if "\n__all__ = " in path.read_text(encoding="utf-8")]
    assert faces == ["omnialpha/__init__.py"], f"one face is enough: {faces}"


MOST_BY_POSITION = 5


def test_calls_carry_few_values_by_position():
    """A swapped line among many values is silent; names are not."""
    long = []
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = [value for value in node.args if not isinstance(value, ast.Starred)]
                long += [show(path, node.lineno)] * (len(given) > MOST_BY_POSITION)
    assert not long, f"more than {MOST_BY_POSITION} values by position, give the others their names: {long}"
