"""What a checkpoint may say about itself, and what happens when it says it wrongly."""

from __future__ import annotations

import json

import pytest

from omnialpha.checkpoint import settings
from omnialpha.errors import OmniAlphaError
from omnialpha.tasks import TASKS


def write(folder, **data):
    (folder / "omnialpha.json").write_text(json.dumps({"format": 1} | data))
    return folder


def test_nothing_said_means_the_public_checkpoint(tmp_path):
    found = settings.read_settings(tmp_path)
    assert (found.pixel_budget, found.size_multiple, found.steps, found.guidance) == (1024**2, 32, 50, 4.0)
    assert found.trained("matting_auto") is None
    assert found.instruction("matting_auto") is None


def test_the_public_tasks_are_tasks():
    assert set(settings.PUBLIC) <= set(TASKS)


def test_values_are_read_and_written_back(tmp_path):
    said = {
        "pixel_budget": 16384,
        "size_multiple": 16,
        "tasks": ["matting_auto"],
        "instructions": {"matting_auto": "Cut."},
        "steps": 4,
        "guidance": 1,
        "sampling": {"text_to_rgba": {"steps": 20, "guidance": 3}, "matting_auto": {"steps": 1}},
    }
    found = settings.read_settings(write(tmp_path, **said))
    assert found.trained("matting_auto") is True and found.trained("removal_mask") is False
    assert found.instruction("matting_auto") == "Cut."
    assert found.to_json() == {"format": 1} | said
    assert (found.steps_for("text_to_rgba"), found.guidance_for("text_to_rgba")) == (20, 3)
    assert (found.steps_for("matting_auto"), found.guidance_for("matting_auto")) == (1, 1)
    assert (found.steps_for(None), found.guidance_for("removal_auto")) == (4, 1), "the checkpoint's own elsewhere"


def test_numbers_stay_as_they_were_written_and_later_keys_are_left_alone(tmp_path):
    own = {"text_to_rgba": {"steps": 20, "guidance": 2.5}}
    written = settings.read_settings(write(tmp_path, sampling=own, later={"a": 1})).to_json()
    assert json.dumps(written["sampling"]) == json.dumps(own) and "later" not in written


def test_the_schedule_comes_from_the_scheduler(tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"max_shift": 1.25, "shift_terminal": null}')
    found = settings.read_settings(tmp_path).schedule
    assert found.max_shift == 1.25


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "format None"),
        ('{"format": 2}', "format 2"),
        ('{"format": 1, "steps": 0}', "steps: expected a whole number, 1 or more, found 0"),
        ('{"format": 1, "steps": true}', "steps: expected int, found True"),
        ('{"format": 1, "size_multiple": 20}', "multiple of 16"),
        ('{"format": 1, "pixel_budget": "big"}', "pixel_budget: expected int, found 'big'"),
        ('{"format": 1, "tasks": "matting_auto"}', "tasks: expected list, found 'matting_auto'"),
        ('{"format": 1, "instructions": {"matting_auto": ""}}', "task id -> text"),
        ('{"format": 1, "guidance": NaN}', "guidance: expected a number, 0 or more, found nan"),
        ('{"format": 1, "sampling": {"matting_auto": {"steps": 0}}}', "sampling: expected task id"),
        ('{"format": 1, "sampling": {"matting_auto": {"strength": 1}}}', "sampling: expected task id"),
        ('{"format": 1, "sampling": {"matting_auto": {"steps": 1.5}}}', "sampling: expected task id"),
        ('{"format": 1, "sampling": {"matting_auto": {"guidance": -1}}}', "sampling: expected task id"),
        ('{"format": 1, "sampling": {"matting_auto": 4}}', "sampling.matting_auto: expected keys and values, found 4"),
        ('{"format": 1, "tasks": [1]}', "tasks: expected str, found 1"),
        ('{"format": 1, "pixel_budget": 255}', "256 or more, found 255"),
        ('{"format": 1, "size_multiple": 0}', "multiple of 16 pixels, found 0"),
    ],
)
def test_wrong_values_are_named(tmp_path, content, words):
    (tmp_path / "omnialpha.json").write_text(content)
    with pytest.raises(OmniAlphaError, match=r"omnialpha\.json") as error:
        settings.read_settings(tmp_path)
    assert words in str(error.value)
