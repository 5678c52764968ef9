"""Configurations that change another one."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from omnialpha.config import read_config, to_dict
from omnialpha.errors import OmniAlphaError
from omnialpha.train.config import TransformerConfig
from omnialpha.train.vae.config import VAEConfig

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Config:
    steps: int = 1
    cache: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()


def write(folder: Path, **files: str) -> Path:
    """Files by name; the path of the last."""
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return path


def test_a_base_is_changed_key_by_key(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, first="steps: 5\ncache: a\nweights: {x: 1, y: 2}\nsizes: [1, 2]")
    write(tmp_path, second="base: first.yaml\nweights: {y: 3, z: 4}\nsizes: [9]")
    path = write(tmp_path / "deep", third="base: ../second.yaml\ncache: null\nsteps: 7")
    config = read_config(Config, path, ["weights.x=8"])
    assert to_dict(config) == {"steps": 7, "cache": None, "weights": {"x": 8, "y": 3, "z": 4}, "sizes": [9]}


@pytest.mark.parametrize(
    "files, words",
    [
        ({"a": "base: gone.yaml"}, "gone.yaml cannot be read"),
        ({"a": "base: 3"}, "base: expected the name of a YAML file, found 3"),
        ({"b": "base: a.yaml", "a": "base: b.yaml"}, "'base' leads back"),
        ({"a": "base: a.yaml"}, "'base' leads back"),
        ({"b": "stepps: 3", "a": "base: b.yaml"}, "no setting is called 'stepps'"),
    ],
)
def test_bases_that_cannot_be(tmp_path, files, words):
    with pytest.raises(OmniAlphaError, match=words):
        read_config(Config, write(tmp_path, **files))


def test_the_legs_of_micro_differ_in_what_they_say():
    """Each goes on from another checkpoint, with the data and losses of the one before."""
    first, *later = (
        read_config(TransformerConfig, ROOT / f"configs/micro/{name}.yaml")
        for name in ("transformer", "transformer-more", "transformer-last")
    )
    assert first.build and [config.checkpoint for config in later] == [
        f"runs/{name}/checkpoint" for name in ("micro", "micro-more")
    ]
    assert all(config.build is None and config.cache == first.cache for config in later)
    assert all(config.weights.keys() == first.weights.keys() for config in later)
    legs = [read_config(VAEConfig, ROOT / f"configs/micro/{name}.yaml") for name in ("vae", "vae-more", "vae-decoder")]
    assert [leg.rgba for leg in legs] == [None, "runs/vae-run/vae", "runs/vae-more/vae"]
    assert [leg.loss.get("objects", 0) > 0 for leg in legs] == [True, True, False]
