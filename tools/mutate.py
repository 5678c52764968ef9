"""Mutation testing of the rooms that compute: change one thing, and see whether their fast tests notice.

    python tools/mutate.py [--each 25] [--seed 0] [--seconds 3600] [MODULE ...]

Each mutant turns one operator, number, flag or call of a module into its neighbour and runs that module's tests up to
the first that fails, in a forked process that imports the changed source; files are left alone. What survives is
printed, and at the end how many of each module were killed. A survivor is either a hole in the tests or the same
computation said differently; which of the two, only a reader can tell. Needs os.fork: Linux and macOS.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# module -> pytest's arguments. Only tests that take seconds: each mutant runs them anew.
TESTS = {
    "omnialpha.model.sampling": ["tests/test_sampling.py"],
    "omnialpha.model.rope": ["tests/test_rope.py"],
    "omnialpha.model.tokens": ["tests/test_sequence.py", "tests/test_sampling.py"],
    "omnialpha.checkpoint.schedule": ["tests/test_sampling.py"],
    "omnialpha.layers.sequence": ["tests/test_sequence.py"],
    "omnialpha.layers.compositing": ["tests/test_layers.py", "tests/test_arranging.py"],
    "omnialpha.layers.resizing": ["tests/test_layers.py", "tests/test_sequence.py"],
    "omnialpha.layers.refining": ["tests/test_refining.py"],
    "omnialpha.metrics": ["tests/test_metrics.py"],
    "omnialpha.train.flow_loss": ["tests/test_train_transformer.py", "-k", "layers_count or channel_weights or noise"],
    "omnialpha.train.schedule": ["tests/test_train.py", "-k", "rate or average"],
    "omnialpha.train.vae.losses": ["tests/test_train_vae_losses.py"],
    "omnialpha.data.guides": ["tests/test_data.py", "-k", "trimap or mask or guide"],
    "omnialpha.files.names": ["tests/test_names.py"],
}

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
CALLS = {
    "min": "max",
    "minimum": "maximum",
    "amin": "amax",
    "any": "all",
    "floor": "ceil",
    "mean": "sum",
    "strip": "rstrip",
    "repeat_interleave": "repeat",
}
CALLS |= {there: here for here, there in CALLS.items() if here not in ("strip", "repeat_interleave")}


def sites(tree: ast.Module) -> list[ast.AST]:
    """The nodes that can be changed: not in docstrings, annotations, or the words of an error."""
    skipped = set()
    for node in ast.walk(tree):
        quiet = [node] if isinstance(node, ast.Raise) else []
        quiet += [getattr(node, field, None) for field in ("annotation", "returns")]
        skipped |= {id(inner) for outer in quiet if outer is not None for inner in ast.walk(outer)}
    return [node for node in ast.walk(tree) if id(node) not in skipped and next(changes(node), None)]


def changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """The attribute of a node that a mutant sets, and to what."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in COMPARISONS:
            yield "ops", [COMPARISONS[type(op)](), *rest]
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield "op", OPERATORS[type(op)]()
        case ast.BoolOp(op=op):
            yield "op", ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield "value", value + 1
        case ast.UnaryOp(op=ast.USub()):
            yield "op", ast.UAdd()
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "operand", ast.UnaryOp(ast.Not(), operand)
        case ast.Attribute(attr=name) if name in CALLS:
            yield "attr", CALLS[name]
        case ast.Name(id=name) if name in CALLS:
            yield "id", CALLS[name]
        case ast.IfExp(test=test):
            yield "test", ast.UnaryOp(ast.Not(), test)


def mutant(source: str, index: int) -> tuple[str, str]:
    """The source with its `index`-th site changed, and in words what was changed."""
    tree = ast.parse(source)
    node = sites(tree)[index]
    before = ast.unparse(node)
    for field, value in changes(node):
        setattr(node, field, value)
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), f"line {node.lineno}: {before[:70]} -> {ast.unparse(node)[:70]}"


class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from a text instead of its file."""

    def __init__(self, module: str, source: str):
        self.module, self.source = module, source

    def find_spec(self, fullname, path=None, target=None):
        if fullname == self.module:
            return importlib.util.spec_from_file_location(fullname, path_of(fullname), loader=self)
        return None

    def get_filename(self, fullname):
        return str(path_of(fullname))

    def get_data(self, path):
        return self.source.encode()


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def passes(module: str, source: str | None, seconds: float) -> bool:
    """Do the module's tests pass with this source (None: its own) within these seconds?"""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        if source is not None:
            sys.meta_path.insert(0, Changed(module, source))
        import pytest
        import torch

        torch.set_num_threads(1)
        try:
            code = pytest.main([*TESTS[module], "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"])
        except BaseException:  # a mutant may do anything, and whatever it does is noticed
            code = 1
        os._exit(int(code))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}; all when left out")
    parser.add_argument("--each", type=int, default=25, help="mutants of each module, drawn at random (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further mutant after this time")
    given = parser.parse_args()
    if unknown := set(given.modules) - set(TESTS):
        parser.error(f"no tests are listed for {', '.join(sorted(unknown))}")

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.dont_write_bytecode = True
    import hypothesis  # noqa: F401  what every mutant imports is imported once
    import pytest  # noqa: F401
    import torch  # noqa: F401

    start, scores = time.monotonic(), {}
    for module in given.modules or TESTS:
        begun = time.monotonic()
        if not passes(module, None, 600):
            print(f"{module}: its own tests fail; it is left out", flush=True)
            continue
        patience = 20 + 4 * (time.monotonic() - begun)
        source = path_of(module).read_text(encoding="utf-8")
        count = len(sites(ast.parse(source)))
        drawn = random.Random(given.seed).sample(range(count), min(given.each, count))
        killed = tried = 0
        for index in sorted(drawn):
            if time.monotonic() - start > given.seconds:
                break
            changed, words = mutant(source, index)
            survived = passes(module, changed, patience)
            tried, killed = tried + 1, killed + (not survived)
            if survived:
                print(f"survived  {module} {words}", flush=True)
        scores[module] = killed, tried
        print(f"{module}: {killed} of {tried} killed; it has {count} sites", flush=True)
    print(f"together: {sum(k for k, _ in scores.values())} of {sum(t for _, t in scores.values())} killed")


if __name__ == "__main__":
    main()
