"""What is asked, and the plan that comes of it; no model is loaded."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace

import pytest
import torch
from PIL import Image

from omnialpha.checkpoint.settings import Settings
from omnialpha.errors import OmniAlphaWarning
from omnialpha.request import Request


def test_what_was_asked_and_decided_is_recorded_without_folders(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    Image.new("L", (64, 48)).save(tmp_path / "mask.png")
    asked = Request(
        task="removal_mask",
        images=[tmp_path / "photo.png"],
        guide=str(tmp_path / "mask.png"),
        guide_polarity="black",
        seed=3,
        clean=False,
        snap=True,
    )
    plan = asked.plan(Settings())
    assert plan.sequence.layers[1][:3].min() > 0.999, "all black is all object where black is the object"
    record = json.loads(json.dumps(plan.record()))
    assert str(tmp_path) not in json.dumps(record)
    assert (record["images"], record["guide"], record["guide_polarity"]) == (["photo.png"], "mask.png", "black")
    assert (record["task"], record["seed"], record["steps"], record["snap_alpha"], record["keep_hidden"]) == (
        "removal_mask",
        3,
        50,
        True,
        True,
    )
    assert replace(asked, images=torch.zeros(4, 48, 64)).plan(Settings()).record()["images"] == [None]


def test_text_that_nobody_reads_is_noted():
    image, settings = torch.ones(4, 64, 64), Settings()
    with pytest.warns(OmniAlphaWarning, match='"a red cup" is not looked at'):
        Request(task="matting_auto", images=[image], text=" a red  cup ").plan(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut_out = image * torch.tensor([1, 1, 1, 0.5]).view(4, 1, 1)
        Request(task="matting_auto", instruction="Cut out {text}.", images=[image], text="a red cup").plan(settings)
        Request(task="fg_to_bg", images=[cut_out], text="a red cup").plan(settings)


def test_names_come_from_roles():
    photo = torch.ones(4, 48, 64)
    assert Request(task="decomposition_auto", images=photo).plan(Settings()).names == ("background", "object")
    free = Request(instruction="Take it apart.", images=photo, num_targets=3).plan(Settings())
    assert free.names == ("background", "layer 1", "layer 2")


def test_fields_have_names_in_a_call():
    with pytest.raises(TypeError):
        Request("matting_auto")
    for name in Request.__dataclass_fields__:
        assert re.search(rf"^ *{name}: ", Request.__doc__, re.MULTILINE), f"{name} is not documented"
