"""Configurations: YAML files read into dataclasses, with errors that name the key and what would be right."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from .errors import OmniAlphaError

T = TypeVar("T")
# What types are called in messages, where that is not their name in Python.
_WORDS = {"Path": "path", "tuple": "list", "dict": "keys and values", "Mapping": "keys and values"}


def read_config(kind: type[T], path: Path | str | None, overrides: Sequence[str] = ()) -> T:
    """A configuration file as an instance of a dataclass.

    Args:
        kind: the dataclass; nested dataclasses are filled from nested mappings.
        path: a YAML file; None to start from nothing. Its key `base` may name another file, relative to it, that it
            changes key by key, within mappings too.
        overrides: "key=value" or "key.inner=value", the value in YAML's spelling.

    Raises:
        OmniAlphaError: unreadable, not a mapping, an unknown key (the nearest known one is named), a missing one, or a
            value of the wrong type.
    """
    data = _load_yaml(path) if path else {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise OmniAlphaError(f"--set {override!r} says nothing; expected key=value, such as steps=1000.")
        _place(data, key.strip().split("."), _parse(value, f"--set {override}"), override)
    return from_dict(kind, data, str(path or "command line"))


def from_dict(kind: type[T], data: Mapping[str, Any], where: str) -> T:
    """A mapping as an instance of a dataclass; `where` names the place in errors. Raises OmniAlphaError."""
    if not isinstance(data, Mapping):
        raise OmniAlphaError(f"{where}: expected keys and values, found {type(data).__name__}.")
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind)) if field.init}
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(fields)}."
            raise OmniAlphaError(f"{where}: no setting is called {key!r}. {hint}")
    needed = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and name not in data
    ]
    if needed:
        raise OmniAlphaError(f"{where}: {needed[0]!r} is missing.")
    return kind(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in data.items()})


def require(config: Any, checks: Mapping[str, tuple[Any, str]], where: str = "") -> None:
    """Hold a configuration to its rules.

    Args:
        config: a dataclass instance.
        checks: field -> (whether it is good, what is expected of it).
        where: names the place in errors, as for `from_dict`.

    Raises:
        OmniAlphaError: names the first field that is not good, what was found and what is expected.
    """
    for name, (good, expected) in checks.items():
        if not good:
            place = f"{where}: {name}" if where else name
            raise OmniAlphaError(f"{place}: expected {expected}, found {getattr(config, name)!r}.")


def to_dict(config: Any) -> dict[str, Any]:
    """The reverse of `from_dict`, ready for JSON: tuples become lists and paths text."""

    def plain(value) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def _load_yaml(path: Path | str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's keys over those of its base; `above` are the files that led here."""
    path = Path(path)
    if path.resolve() in above:
        raise OmniAlphaError(f"{above[-1]}: 'base' leads back to {path}. Take it out of one of them.")
    data = _read_yaml(path)
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise OmniAlphaError(f"{path}: base: expected the name of a YAML file, found {base!r}.")
    return _merge(_load_yaml(path.parent / base, (*above, path.resolve())), data)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, mappings key by key."""
    both = {key: (base[key], value) for key, value in changes.items() if key in base}
    nested = {key: _merge(*pair) for key, pair in both.items() if all(isinstance(value, dict) for value in pair)}
    return base | changes | nested


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise OmniAlphaError(f"{path} cannot be read: {error.strerror or error}. Give a YAML file.") from error
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise OmniAlphaError(f"{path}: expected `key: value` lines, found {type(data).__name__}.")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise OmniAlphaError("Configuration files need PyYAML: pip install -r requirements-train.txt") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OmniAlphaError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _place(data: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise OmniAlphaError(f"--set {override}: {key!r} is a value and holds no keys.")
    data[keys[-1]] = value


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A YAML value as the annotated type, or an error."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _first_fit([arg for arg in args if arg is not type(None)], value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            if len(value) != len(args):
                raise OmniAlphaError(f"{where}: expected {len(args)} values, found {value!r}.")
            return tuple(_convert(arg, item, where) for arg, item in zip(args, value))
        return origin(_convert(args[0], item, where) for item in value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {str(key): _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    plain = {float: (int, float, str), int: (int,), str: (str,), bool: (bool,), Path: (str,)}
    if kind in plain and isinstance(value, plain[kind]) and (kind is bool or not isinstance(value, bool)):
        try:
            return kind(value)  # YAML reads 1e-3 as text, hence str among the numbers
        except ValueError:
            pass
    if kind is Any:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise OmniAlphaError(f"{where}: expected {_WORDS.get(name, name)}, found {value!r}.")


def _first_fit(kinds: list[Any], value: Any, where: str) -> Any:
    problems = []
    for kind in kinds:
        try:
            return _convert(kind, value, where)
        except OmniAlphaError as error:
            problems.append(error)
    raise problems[-1]
