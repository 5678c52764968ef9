"""A folder belongs to one configuration, whoever writes to it."""

from __future__ import annotations

import os

import pytest
import torch

from omnialpha.errors import OmniAlphaError
from omnialpha.files.run_folder import NOTE, claim
from omnialpha.files.writing import DiskError, free_path, write_over, write_tensors


def test_the_same_configuration_goes_on_and_another_is_named(tmp_path):
    config = {"size": (64, 96), "vae": {"hash": "a"}, "workers": 2}
    claim(tmp_path / "run", config)
    claim(tmp_path / "run", config)  # a tuple comes back from JSON as a list
    claim(tmp_path / "run", config | {"workers": 8}, free=("workers",))
    with pytest.raises(OmniAlphaError, match="holds a run with workers = 2, not 8"):
        claim(tmp_path / "run", config | {"workers": 8})
    with pytest.raises(OmniAlphaError, match=r"holds a cache with vae\.hash = 'a', not 'b'"):
        claim(tmp_path / "run", config | {"vae": {"hash": "b"}}, what="a cache")
    with pytest.raises(OmniAlphaError, match=r"holds a run that says nothing of pixels, which is 'keep' now\. Give"):
        claim(tmp_path / "run", config | {"pixels": "keep"})
    (tmp_path / "run" / NOTE).write_text("{")
    with pytest.raises(OmniAlphaError, match=r"not valid JSON.*another --out"):
        claim(tmp_path / "run", config)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / ".half.tmp").write_text("")
    claim(tmp_path, {}, alone=True)
    (tmp_path / NOTE).unlink()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OmniAlphaError, match="that is not a run"):
        claim(tmp_path, {}, alone=True)
    assert not (tmp_path / NOTE).exists()


def test_what_is_replaced_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "state.json"
    write_over(path, "one")

    def half(file):
        file.write(b"tw")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"Could not write .*state\.json: No space left"):
        write_over(path, half)
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["state.json"]
    write_over(path, b"two")
    assert path.read_text() == "two"


def test_new_weights_are_never_written_over_a_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("precious")
    with pytest.raises(OmniAlphaError, match="exists and is not overwritten"):
        write_tensors(path, {"a": torch.ones(2)}, new=True)
    assert path.read_text() == "precious" and os.listdir(tmp_path) == [path.name]
    write_tensors(path, {"a": torch.ones(2)})
    assert path.read_bytes()[:1] != b"p"


def test_a_free_name_is_one_that_a_disk_takes(tmp_path):
    path = tmp_path / ("ü" * 125 + ".png")
    path.write_bytes(b"")
    other = free_path(path)
    other.write_bytes(b"")
    assert other != path and other.name.endswith("ü-2.png") and free_path(path).name.endswith("ü-3.png")
