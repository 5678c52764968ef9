"""Reading records, deriving tasks, augmenting, streaming."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_triplets

from omnialpha.data.augment import AUGMENTATIONS, SCENE, SHOWN, augment, check_augmentations
from omnialpha.data.compose import composite
from omnialpha.data.examples import SizeRule, derive, read_rgba, tasks_of, to_layer
from omnialpha.data.records import StackRecord, Supervised, read_records
from omnialpha.data.stream import ExampleStream
from omnialpha.errors import OmniAlphaError
from omnialpha.layers.compositing import flatten, over_colour
from omnialpha.tasks import GUIDES, TASKS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_triplets(tmp_path_factory.mktemp("data"), count=16)


@pytest.fixture(scope="module")
def records(dataset):
    return read_records(dataset).records


def test_a_triplet_serves_all_tasks(records):
    assert tasks_of(records[0]) == tuple(TASKS)


# What the method says of each family: layers in, layers out (F foreground, B background, C composite, T M R guides).
TRUTH = {
    "text_to_rgba": "-F",
    "text_to_layers": "-BF",
    "fg_to_full": "F-C",
    "bg_to_full": "B-C",
    "fg_to_bg": "F-B",
    "bg_to_fg": "B-F",
} | {
    f"{family}_{kind}": f"C{guide}-{out}"
    for family, out in (("matting", "F"), ("removal", "B"), ("decomposition", "BF"))
    for kind, guide in (("auto", ""), ("text", ""), ("trimap", "T"), ("mask", "M"), ("coarse_mask", "R"))
}
LETTERS = {"F": "foreground", "B": "background", "C": "composite", "T": "trimap", "M": "mask", "R": "coarse_mask"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_each_task_is_derived_from_the_triplet(records, task):
    record = records[3]
    example = derive(record, task.id, np.random.default_rng(1))
    given, asked = ([LETTERS[letter] for letter in side] for side in TRUTH[task.id].split("-"))
    assert (len(given), len(asked)) == (len(example.inputs), len(example.targets)) and len(TRUTH) == len(TASKS) == 21
    for role, layer in [*zip(given, example.inputs), *zip(asked, example.targets)]:
        assert layer.shape == (4, 64, 64) and layer.dtype == torch.float32
        if role in GUIDES:
            assert torch.equal(layer[0], layer[2]) and layer[3].min() == 1, "a guide is opaque grey"
        else:
            assert torch.equal(layer, to_layer(read_rgba(record.pictures[role])))
    if task.family == "decomposition":
        shown = over_colour(flatten(example.targets))
        assert (shown - example.inputs[0][:3]).abs().max() <= 0.5 / 255 + 1e-5
    if task.needs_text:
        assert example.text in record.captions.values() and example.text in example.instruction


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_belong_to_the_alpha(records, guide):
    for seed, record in enumerate(records[:8]):
        example = derive(record, f"matting_{guide}", np.random.default_rng(seed))
        plane, alpha = example.inputs[1][0], example.targets[0][3]
        if guide == "trimap":
            assert alpha[plane == 1].min() >= 250 / 255 if (plane == 1).any() else True
            assert alpha[plane == 0].max() <= 4 / 255
        else:
            assert plane[alpha > 0.9 * alpha.max()].mean() > 0.7


def test_sizes_follow_the_pixel_budget(records):
    rule = SizeRule(128 * 128, 16)
    sides = [
        derive(records[0], task, np.random.default_rng(0), rule).targets[0].shape[1]
        for task in ("text_to_rgba", "matting_auto", "matting_mask", "decomposition_mask")
    ]
    assert sides == [128, 96, 80, 64]


def test_what_a_record_lacks_it_cannot_serve(tmp_path):
    portraits = read_records(make_triplets(tmp_path, count=4, portraits=True)).records
    assert tasks_of(portraits[0]) == ("text_to_rgba",)
    with pytest.raises(OmniAlphaError, match="cannot serve the task matting_auto; it can serve: text_to_rgba"):
        derive(portraits[0], "matting_auto", np.random.default_rng(0))


def write_lines(path, lines):
    text = [line if isinstance(line, (str, bytes)) else json.dumps(line) for line in lines]
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in text))
    return path


def test_supervised_lists_and_stacks(dataset, tmp_path):
    front, back, shown = (
        f"{kind}/000000-0{end}.png" for kind, end in (("foreground", ""), ("background", ""), ("composite", "0"))
    )
    lines = write_lines(
        tmp_path / "mixed.jsonl",
        [
            {"id": 1, "prompt": "cut it out", "input_images": [shown], "output_images": [front]},
            {"id": "s", "layers": [back, front, front], "composite": shown, "captions": {"layers": ["a", "b", "c"]}},
        ],
    )
    single, stack = read_records(lines, images=dataset).records
    assert isinstance(single, Supervised) and isinstance(stack, StackRecord)
    example = derive(single, "supervised", np.random.default_rng(0))
    assert example.instruction == "cut it out" and len(example.inputs) == len(example.targets) == 1
    example = derive(stack, "stack", np.random.default_rng(0), SizeRule(128 * 128, 16))
    assert len(example.targets) == 3 and "3 layers" in example.instruction and example.targets[0].shape[1] == 64


@pytest.mark.parametrize(("line", "reason"), [
    ("{broken", "broken JSON"), ([1, 2], "expected a JSON object"), ({"foreground": "x.png"}, 'no "id"'),
    ({"id": "a"}, 'no "foreground"'), ({"id": "a", "foreground": "nowhere.png"}, "missing picture"),
    ({"id": "a", "foreground": "../../etc/passwd"}, "leads out of the data set"),
    ({"id": "a", "foreground": 3}, "path"),
    ({"id": "a", "output_images": []}, "nothing to learn"), ({"id": "a", "layers": ["x.png"]}, "two layers or more"),
    ({"id": "a", "input_images": "x", "output_images": ["y.png"]}, "has to be a list"),
    ({"id": "a", "foreground": "foreground/000000-0.png", "tags": "soft"}, "has to be a list"),
    ({"id": "a", "foreground": "foreground/000000-0.png", "captions": {"foreground": None}}, "has to be text"),
    ({"id": "a", "foreground": "/etc/passwd"}, "leads out of the data set"), ("[" * 100_000, "nested too deeply"),
    (b'{"id": "\xff"}', "not UTF-8"),
    ({"id": "000000-00", "foreground": "foreground/000000-0.png"}, "earlier line"),
])  # fmt: skip
def test_a_bad_line_is_a_problem_not_a_crash(dataset, tmp_path, line, reason):
    good = {"id": "000000-00", "foreground": "foreground/000000-0.png"}
    reading = read_records(write_lines(tmp_path / "list.jsonl", [good, line]), images=dataset)
    assert len(reading.records) == 1
    (problem,) = reading.problems
    assert problem.line == 2 and reason in problem.reason


def test_nothing_usable_is_an_error(tmp_path):
    with pytest.raises(OmniAlphaError, match="does not exist"):
        read_records(tmp_path)
    with pytest.raises(OmniAlphaError, match=r"no usable record.*line 1: broken JSON"):
        read_records(write_lines(tmp_path / "list.jsonl", ["{"]))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_the_truth(records, name):
    for seed in range(8):
        layers = {role: read_rgba(path) for role, path in records[seed].pictures.items()}
        before = {role: layer.copy() for role, layer in layers.items()}
        changed = augment(layers, [name], np.random.default_rng(seed), shown=["composite"])
        assert all(np.array_equal(layers[role], before[role]) for role in layers), "the originals are left alone"
        again = composite(changed["foreground"], changed["background"][..., :3])
        error = np.abs(again - changed["composite"][..., :3])
        assert error.max() <= 0.5 / 255 + 1e-5 if name in SCENE else error.mean() < 0.1
        if name in SHOWN:
            for answer in ("foreground", "background"):
                assert np.array_equal(changed[answer], before[answer]), "answers are never damaged"


def test_every_augmentation_does_something(records):
    layers = {role: read_rgba(path) for role, path in records[0].pictures.items()}
    for name in AUGMENTATIONS:
        runs = [augment(layers, [name], np.random.default_rng(seed), shown=tuple(layers)) for seed in range(4)]
        assert any(not np.array_equal(run[role], layers[role]) for run in runs for role in layers), name


def test_hidden_colour_stays_hidden(records):
    layers = {"foreground": read_rgba(records[0].pictures["foreground"])}
    changed = augment(layers, ["hidden"], np.random.default_rng(0), shown=["foreground"])["foreground"]
    seen = layers["foreground"][..., 3] > 0
    assert np.array_equal(changed[seen], layers["foreground"][seen]) and (changed[~seen][:, :3] > 0).all()
    assert np.array_equal(changed[..., 3], layers["foreground"][..., 3])


def test_augmentations_are_checked_by_name():
    with pytest.raises(OmniAlphaError, match=r"No augmentation is called 'spin'\. There are: flip"):
        augment({}, ["spin"], np.random.default_rng(0))
    with pytest.raises(OmniAlphaError, match="No augmentation here is called 'jpeg'"):
        check_augmentations(["jpeg"], SCENE)


def fingerprint(example) -> tuple:
    return example.key, example.instruction, tuple(float(layer.sum()) for layer in (*example.inputs, *example.targets))


@settings(max_examples=10, deadline=None)
@given(start=st.integers(0, 1000), processes=st.integers(1, 4), seed=st.integers(0, 3))
def test_the_stream_is_a_function_of_seed_and_index(records, start, processes, seed):
    weights = {"matting_trimap": 1, "removal_text": 2}
    whole = ExampleStream(records, weights, seed=seed)
    for process in range(processes):
        part = ExampleStream(records, weights, seed=seed, start=start, process=process, processes=processes)
        for step, example in enumerate(itertools.islice(part, 2)):
            assert fingerprint(example) == fingerprint(whole.example(start + process + step * processes))


def test_the_stream_mixes_by_weight_and_takes_workers(records):
    stream = ExampleStream(records, {"matting_auto": 3, "removal_auto": 1, "fg_to_bg": 0}, seed=1)
    drawn = [stream.example(index).task for index in range(200)]
    assert 0.65 < drawn.count("matting_auto") / 200 < 0.85 and "fg_to_bg" not in drawn
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)
    keys = {example.key for example in itertools.islice(loader, 8)}
    assert keys == {stream.example(index).key for index in range(8)}


def test_the_stream_names_what_it_skips(tmp_path, caplog):
    folder = make_triplets(tmp_path, count=4, grid=1)
    records = read_records(folder).records
    records[0].pictures["composite"].write_bytes(b"junk")
    stream = ExampleStream(records, {"matting_auto": 1})
    for index in range(20):
        assert records[0].id not in stream.example(index).key
    assert list(stream.broken) == [records[0].id] and records[0].id in caplog.text
    for record in records:
        record.pictures["composite"].write_bytes(b"junk")
    with pytest.raises(OmniAlphaError, match="in a row cannot be read"):
        stream.example(0)
    with pytest.raises(OmniAlphaError, match="No record can serve supervised"):
        ExampleStream(records, {"supervised": 1})
