"""The builder, the filter, and what they write."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from making import draw_object, edit_records, make_materials, make_triplets
from PIL import Image

from omnialpha.cli.main import main
from omnialpha.data.build import build, read_build
from omnialpha.data.compose import composite
from omnialpha.data.config import BuildConfig
from omnialpha.data.examples import read_rgba
from omnialpha.data.filter import FilterLimits, filter_data
from omnialpha.data.objects import folder_objects
from omnialpha.data.records import read_records
from omnialpha.errors import OmniAlphaError

ROOT = Path(__file__).resolve().parent.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_triplets(tmp_path_factory.mktemp("data"), count=16)


@pytest.fixture
def own(tmp_path):
    return make_triplets(tmp_path, count=4)


def test_triplets_recompose_exactly(dataset):
    records = read_records(dataset).records
    assert len(records) == 16 and len({record.id for record in records}) == 16
    for record in records:
        layers = {role: read_rgba(path) for role, path in record.pictures.items()}
        again = composite(layers["foreground"], layers["background"][..., :3])
        assert np.abs(again - layers["composite"][..., :3]).max() <= 0.5 / 255 + 1e-6
        assert not layers["foreground"][layers["foreground"][..., 3] == 0].any(), "hidden pixels are black"
        assert set(record.captions) == {"foreground", "background", "composite"}


def test_a_block_shares_its_pictures(dataset):
    assert len(list((dataset / "foreground").iterdir())) == len(list((dataset / "background").iterdir())) == 8
    assert len(list((dataset / "composite").iterdir())) == 16


def test_stacks_have_as_many_layers_as_asked_for(tmp_path):
    folder = make_triplets(tmp_path, count=4, layers=4)
    stacks = read_records(folder).records
    assert len(stacks) == 4 and filter_data(folder)["kept"] == 4
    for stack in stacks:
        shown, *fronts = (read_rgba(path) for path in stack.layers)
        for front in fronts:
            shown = np.concatenate([composite(front, shown[..., :3]), shown[..., 3:]], -1)
        assert len(fronts) == 3 and np.abs(shown - read_rgba(stack.composite)).max() <= 0.5 / 255 + 1e-5
        assert len(stack.captions) == 4 and all(words in stack.caption for words in stack.captions)


def test_any_number_of_workers_makes_the_same_bytes(dataset, tmp_path):
    config = read_build(dataset)
    for _ in build(config, tmp_path / "again", workers=2):
        pass
    assert contents(tmp_path / "again") == contents(dataset)


@pytest.mark.slow
def test_a_killed_build_goes_on(tmp_path):
    objects, backgrounds = make_materials(tmp_path / "materials")
    command = [sys.executable, "-m", "omnialpha", "data", "build", "--workers", "1"]
    for pair in (f"objects={objects}", f"backgrounds={backgrounds}", "split=all", "count=400", "size=64", "grid=2"):
        command += ["--set", pair]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    started = subprocess.Popen([*command, "--out", str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while started.poll() is None and len(list(killed.glob("parts/*.jsonl"))) < 10:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert 0 < len(list(killed.glob("parts/*.jsonl"))) < 100 and not (killed / "triplets.jsonl").exists()
    for out in (killed, whole):
        subprocess.run([*command, "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
    assert contents(killed) == contents(whole)


def test_another_configuration_is_refused(own):
    config = BuildConfig(objects=str(own.parent / "materials/objects"), split="all", seed=9)
    with pytest.raises(OmniAlphaError, match="holds a data set built with"):
        next(build(config, own))
    (own.parent / "full").mkdir()
    (own.parent / "full/note.txt").write_text("mine")
    with pytest.raises(OmniAlphaError, match="is not a data set"):
        next(build(config, own.parent / "full"))


@pytest.mark.parametrize(("change", "words"), [
    ({"split": "some"}, "train, test or all"), ({"size": 8}, "32 to 4096"),
    ({"chances": {"wings": 1.0}}, "effects among"),
    ({"scale": (0.9, 0.2)}, "two shares"), ({"layers": 1}, "2 to 16"), ({"textures": 3.0}, "a share"),
])  # fmt: skip
def test_bad_settings_teach(change, words):
    with pytest.raises(OmniAlphaError, match=words):
        BuildConfig(objects="x", **change)


def test_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch):
    objects, backgrounds = make_materials(tmp_path / "materials")
    config = BuildConfig(objects=str(objects), backgrounds=str(backgrounds), split="all", count=4, size=64, grid=1)
    monkeypatch.setattr("PIL.Image.Image.save", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OmniAlphaError, match=r"No space left.*Make room and run the same command again"):
        for _ in build(config, tmp_path / "out"):
            pass


def test_the_filter_keeps_what_is_right(own):
    report = filter_data(own)
    assert (report["kept"], report["rejected"]) == (4, 0)
    assert {"report.json", "report.png", "rejected.jsonl"} <= {path.name for path in own.iterdir()}
    assert len(read_records(own).records) == 4


def spoil(own: Path, fault: str) -> None:
    record = next(json.loads(line) for line in (own / "triplets.jsonl").read_text().splitlines())
    front, shown = own / record["foreground"], own / record["composite"]
    size = Image.open(front).size
    if fault == "unreadable picture":
        shown.write_bytes(shown.read_bytes()[:200])
    elif fault == "missing picture":
        shown.unlink()
    elif fault == "sizes differ":
        Image.open(shown).resize((32, 32)).save(shown)
    elif fault == "no alpha channel":
        Image.open(front).convert("RGB").save(front)
    elif fault == "empty alpha":
        Image.new("RGBA", size).save(front)
    elif fault == "full alpha":
        Image.new("RGBA", size, (9, 9, 9, 255)).save(front)
    elif fault == "recomposition":
        Image.new("RGB", size, (1, 2, 3)).save(shown)
    elif fault == "no soft edge":
        hard = Image.new("RGBA", size)
        hard.paste((200, 10, 10, 255), (10, 10, 40, 40))
        hard.save(front)
        edit_records(own, lambda records: [r.update(tags=["glass"]) for r in records])
    elif fault == "missing caption":
        edit_records(own, lambda records: records[0]["captions"].pop("foreground"))
    elif fault == "near-duplicate":
        edit_records(own, lambda records: records.append({**records[0], "id": "again"}))
    elif fault == "broken JSON":
        with (own / "triplets.jsonl").open("a") as file:
            file.write('{"id": "cut off", "foregr\n')


@pytest.mark.parametrize(
    "fault",
    [
        "unreadable picture",
        "missing picture",
        "sizes differ",
        "no alpha channel",
        "empty alpha",
        "full alpha",
        "recomposition",
        "no soft edge",
        "missing caption",
        "near-duplicate",
        "broken JSON",
    ],
)
def test_the_filter_rejects_with_a_reason(own, fault):
    spoil(own, fault)
    report = filter_data(own, FilterLimits())
    assert fault in report["reasons"], report["reasons"]
    rejected = [json.loads(line) for line in (own / "rejected.jsonl").read_text().splitlines()]
    assert any(fault in item["reason"] for item in rejected)
    assert report["kept"] == len(read_records(own).records)
    assert filter_data(own, FilterLimits())["reasons"] == report["reasons"], "safe to repeat"


def test_what_was_measured_is_not_read_again(own, monkeypatch):
    first = filter_data(own)
    strict = filter_data(own, FilterLimits(visible=0.9))
    assert strict["kept"] == 0 and strict["reasons"] == {"empty alpha": 4}
    with pytest.raises(OmniAlphaError, match=r"no usable record.*rejected 4"):
        read_records(own)
    read = []
    monkeypatch.setattr("omnialpha.data.measure.read_rgba", lambda path: read.append(path) or read_rgba(path))
    monkeypatch.setattr("omnialpha.data.measure._read", lambda path: read.append(path) or read_rgba(path))
    with (own / "measures.jsonl").open("a") as file:
        file.write('{"id": "cut o')  # as a stopped filter leaves it
    assert filter_data(own) == first and not read
    changed = read_records(own).records[0]
    Image.new("RGB", (64, 64)).save(changed.pictures["composite"])
    assert filter_data(own)["reasons"] == {"recomposition": 1}
    assert set(read) == set(changed.files), "only what has changed is read"


def test_a_rejected_line_takes_no_namesake_along(own):
    edit_records(own, lambda records: records.append(records[0]))
    assert filter_data(own)["reasons"] == {"duplicate id": 1}
    assert len(read_records(own).records) == 4


def test_near_duplicates_are_found_whatever_they_are_called(own):
    def copy(records):
        twin = {**records[0], "id": "twin", "composite": "composite/twin.png"}
        twin["captions"] = {"foreground": "something else"}
        records.append(twin)

    edit_records(own, copy)
    shown = Image.open(own / "composite/000000-00.png")
    shown.save(own / "composite/twin.jpg", quality=85)
    Image.open(own / "composite/twin.jpg").save(own / "composite/twin.png")
    assert filter_data(own, FilterLimits(recomposition=0.1))["reasons"] == {"near-duplicate": 1}
    assert filter_data(own, FilterLimits(recomposition=0.1, duplicate_bits=-1))["rejected"] == 0


def test_stacks_and_lists_are_filtered_too(own):
    names = {kind: next((own / kind).iterdir()).relative_to(own).as_posix() for kind in ("foreground", "background")}
    front, back = read_rgba(own / names["foreground"]), read_rgba(own / names["background"])
    shown = composite(front, composite(front, back[..., :3]))
    Image.fromarray((shown * 255).round().astype(np.uint8)).save(own / "all.png")
    (own / "broken.png").write_bytes(b"junk")
    layers = [names["background"], names["foreground"], names["foreground"]]
    rows = [
        {"id": "stack", "layers": layers, "composite": "all.png", "captions": {"composite": "two of a kind"}},
        {"id": "wrong", "layers": layers, "composite": names["background"], "captions": {"composite": "one"}},
        {"id": "list", "prompt": "x", "input_images": ["all.png"], "output_images": [names["foreground"]]},
        {"id": "torn", "prompt": "x", "input_images": ["broken.png"], "output_images": [names["foreground"]]},
    ]
    (own / "triplets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert filter_data(own)["reasons"] == {"recomposition": 1, "unreadable picture": 1}
    assert [record.id for record in read_records(own).records] == ["stack", "list"]


def test_commands(tmp_path, capsys):
    objects, backgrounds = make_materials(tmp_path)
    out = tmp_path / "out"
    build_it = [
        "data",
        "build",
        "--set",
        f"objects={objects}",
        "--set",
        f"backgrounds={backgrounds}",
        "--set",
        "count=4",
    ]
    assert main([*build_it, "--set", "split=all", "--workers", "1", "--out", str(out)]) == 0
    assert main(["data", "filter", str(out), "--workers", "1"]) == 0
    assert main(["data", "show", str(out), "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "16 records" in said and "kept" in said and "21: text_to_rgba" in said
    assert Image.open(tmp_path / "sheet.png").width > 500
    assert main(["data", "build", "--out", str(tmp_path / "x")]) == 2
    assert main(["data", "show", str(tmp_path / "nowhere")]) == 2


def test_broken_pictures_are_named_and_left_out(tmp_path, capsys):
    objects, backgrounds = make_materials(tmp_path)
    (objects / "zz.png").write_bytes(b"not a picture")
    draw_object("a red disc").convert("RGB").save(objects / "flat.png")
    (backgrounds / "torn.jpg").write_bytes((backgrounds / "sky.jpg").read_bytes()[:300])
    command = ["data", "build", "--objects", str(objects), "--backgrounds", str(backgrounds), "--split", "all"]
    assert main([*command, "--count", "64", "--size", "64", "--workers", "1", "--out", str(tmp_path / "out")]) == 0
    problems = (tmp_path / "out/problems.jsonl").read_text()
    assert "zz.png cannot be read" in problems and "flat.png has no alpha" in problems and "torn.jpg" in problems
    assert "3 pictures could not be used" in capsys.readouterr().out
    assert len(read_records(tmp_path / "out").records) == 64
    for name in ("a_red_disc.png", "a_blue_square.png", "a_green_star.png"):
        (objects / name).write_bytes(b"not a picture either")
    assert main([*command, "--count", "64", "--seed", "1", "--workers", "1", "--out", str(tmp_path / "none")]) == 2
    assert "in a row cannot be used" in capsys.readouterr().err


def test_captions_come_from_tables_notes_or_names(tmp_path):
    objects, _ = make_materials(tmp_path)
    (objects / "captions.csv").write_text("file,caption\na_red_disc.png,a red button\n")
    (objects / "metadata.jsonl").write_text('{"file_name": "a_green_star.png", "text": "a star"}\n')
    (objects / "a_blue_square.txt").write_text("\n a box, seen from above \nmore\n")
    assert {entry.name for entry in folder_objects(objects)} == {"a red button", "a star", "a box, seen from above"}
    (objects / "metadata.jsonl").write_text('{"file_name": "a_green_star.png"}\n')
    with pytest.raises(OmniAlphaError, match=r'metadata\.jsonl, line 1: expected a "file" and a "caption"'):
        folder_objects(objects)


def test_familiar_names_have_to_exist(tmp_path):
    objects, backgrounds = make_materials(tmp_path)
    config = BuildConfig(str(objects), str(backgrounds), split="all", familiar=("a red disc", "a unicorn"))
    with pytest.raises(OmniAlphaError, match="no object of the split 'all' is called 'a unicorn'"):
        next(build(config, tmp_path / "out"))


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_build(tmp_path):
    objects, backgrounds = make_materials(tmp_path / "materials")
    command = [
        sys.executable,
        "-m",
        "omnialpha",
        "data",
        "build",
        "--objects",
        str(objects),
        "--backgrounds",
        str(backgrounds),
        "--split",
        "all",
        "--count",
        "100000",
        "--size",
        "64",
        "--workers",
        "2",
    ]
    out = tmp_path / "out"
    started = subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while started.poll() is None and len(list(out.glob("parts/*.jsonl"))) < 3:
        time.sleep(0.05)
    started.kill()
    started.wait()
    time.sleep(1)
    before = len(list(out.glob("parts/*.jsonl")))
    time.sleep(1)
    assert before == len(list(out.glob("parts/*.jsonl")))
