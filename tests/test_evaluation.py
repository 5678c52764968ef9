"""Evaluating from end to end, on a small data set and the built-in checkpoint."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from making import edit_records, make_triplets

from omnialpha.cli.main import main
from omnialpha.data.records import read_records
from omnialpha.errors import OmniAlphaError
from omnialpha.evaluation.cases import draw_answer, make_case, refine_answer
from omnialpha.evaluation.classical import cut_out
from omnialpha.evaluation.measures import NAIVE, deciding, is_open, measure, measures_of, naive_methods
from omnialpha.evaluation.results import GIVEN, METHODS, Results
from omnialpha.evaluation.run import LINES, evaluate, values_of
from omnialpha.files.pictures import read_layer, write_layer
from omnialpha.files.run_folder import NOTE
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.tasks import TASKS

GUIDED = ["matting_auto", "matting_trimap"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_triplets(tmp_path_factory.mktemp("data"), count=8)


@pytest.fixture(scope="module")
def records(dataset):
    return read_records(dataset).records


@pytest.fixture(scope="module")
def pipeline():
    return OmniAlphaPipeline.from_pretrained("micro")


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("task", TASKS)
def test_the_truth_beats_every_naive_answer(records, task):
    """Each task has measures that decide and naive answers; the truth wins by all of them."""
    case = make_case(records[0], task, 0)
    perfect = values_of(case, [case.targets])
    assert set(deciding(task)) <= set(perfect) and set(naive_methods(task)) & set(GIVEN)
    for name in naive_methods(task):
        naive = values_of(case, [NAIVE[name](case)])
        result = Results([{"record": "r", "task": task, "pixels": 4096, "values": {"model": perfect, name: naive}}])
        assert result.beats(task, name) is True, name
    for row in measures_of(task):
        # The composite on file has 8 bits, so layers recompose to it up to half a step.
        best = {"recomposition": 0, "picture": 0}.get(row.name)
        if best is None:
            best = {"soft_iou": 1, "nine_psnr": 100, "nine_ssim": 1}.get(row.name.split("_", 1)[-1], 0)
        assert perfect[row.name] == pytest.approx(best, abs=0.5 / 255), row.name


def test_a_case_depends_on_its_record_and_the_seed_alone(records, pipeline):
    one, again, other = (make_case(records[1], "matting_trimap", seed) for seed in (0, 0, 1))
    assert torch.equal(one.inputs[1], again.inputs[1]) and not torch.equal(one.inputs[1], other.inputs[1])
    decomposed = make_case(records[1], "decomposition_trimap", 0)
    assert torch.equal(one.inputs[1], decomposed.inputs[1]), "all tasks on a record have the same guide"
    alone = evaluate(pipeline, records[1:2], ["matting_auto", "text_to_rgba"], steps=1, baselines=False)
    among = evaluate(pipeline, records[:2], ["text_to_rgba", "matting_auto"], steps=1, baselines=False)
    for row in alone.rows:
        (same,) = [r for r in among.rows if (r["record"], r["task"]) == (row["record"], row["task"])]
        assert same["values"] == row["values"]
    drawn = [draw_answer(pipeline, make_case(records[1], "text_to_rgba", 0), k, steps=1)[0] for k in (0, 1)]
    assert drawn[0].shape == (4, 64, 64) and not torch.equal(*drawn), "samples have noise of their own"


def test_numbers_in_the_lines_are_those_of_the_pipeline(records, pipeline):
    case = make_case(records[0], "matting_mask", 3)
    answer = draw_answer(pipeline, case)
    row = evaluate(pipeline, records[:1], ["matting_mask"], seed=3).rows[0]
    alpha = (answer[0][3].double() - case.targets[0][3].double()).abs()
    assert row["values"]["model"]["foreground_sad"] == pytest.approx(float(alpha.sum()))
    assert row["values"]["opaque"]["foreground_mad"] == pytest.approx(float((1 - case.targets[0][3].double()).mean()))
    assert row["pixels"] == 64 * 64 and row["size"] == [64, 64]


def test_refined_objects_are_a_method_of_their_own(records, pipeline):
    """Of matting and decomposition; the other layers stay, and so does what a trimap says."""
    tasks = ["matting_auto", "matting_trimap", "removal_trimap", "decomposition_trimap"]
    results = evaluate(pipeline, records[:2], tasks, baselines=False, refined=True, steps=1)
    both, alone = ("model", "refined"), ("model",)
    assert [results.methods(task) for task in tasks] == [both, both, alone, both]
    error = {method: results.mean("matting_trimap", method, "foreground_mse") for method in both}
    assert error["refined"] < error["model"], "a trimap and the picture's edges help a model this small"
    background = [results.values(tasks[3], method, "background_nine_psnr") for method in both]
    assert background[0] == background[1]
    assert "model, refined" in results.table()
    case = make_case(records[0], "matting_trimap", 0)
    known = case.inputs[1][0]
    fine = refine_answer(case, draw_answer(pipeline, case, steps=1))[0]
    assert torch.equal(fine[3][known != 0.5], known[known != 0.5])


def test_the_command_writes_everything(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("evaluate", dataset, "--split", "all", "--count", 2, "--keep", 1, "--out", out)
    assert run(*words, *(word for task in (*GUIDED, "fg_to_bg") for word in ("--task", task)), "--steps", 1) == 0
    shown = capsys.readouterr().out
    assert "matting_trimap" in shown and "beats naive" in shown and "closed form" in shown
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert report["config"]["checkpoint"] == "micro" and report["config"]["seed"] == 0 and report["software"]["torch"]
    assert (report["config"]["pixels"], report["config"]["look"]) == ("keep", "close")
    assert any("transformer" in name for name in report["config"]["weights"])
    assert list(report["tasks"]) == ["fg_to_bg", *GUIDED] and len(report["records"]) == 6
    trimap = report["tasks"]["matting_trimap"]
    assert set(trimap["methods"]) == {"model", "opaque", "closed_form", "knn"}
    assert trimap["records"] == 2 and trimap["pixels"] == [4096, 4096] and trimap["unknown_pixels"][1] < 4096
    each = [row["values"]["model"]["foreground_mse"] for row in report["records"] if row["task"] == "matting_trimap"]
    assert trimap["methods"]["model"]["foreground_mse"]["mean"] == pytest.approx(sum(each) / 2)
    assert trimap["against"]["opaque"]["foreground_mse"]["records"] == 2
    lines = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert sum(
        float(row["value"])
        for row in lines
        if (row["task"], row["method"], row["measure"]) == ("matting_trimap", "model", "foreground_mse")
    ) == pytest.approx(sum(each))
    assert {row["pixels"] for row in lines} == {"4096"}
    assert shown.split("\n\n")[0] in (out / "table.md").read_text(encoding="utf-8")
    names = {"fg_to_bg.png", *(f"{task}.png" for task in GUIDED)}
    assert {path.name for path in (out / "sheets").iterdir()} == names
    assert {path.name for path in (out / "plots").iterdir()} == names | {"overview.png"}
    assert all(read_layer(path).shape[0] == 4 for path in out.glob("*s/*.png"))
    assert len(list((out / "answers/matting_auto").iterdir())) == 1
    assert not list(out.rglob(".*.tmp"))
    assert run(*words, "--seed", 1) == 2 and "holds an evaluation with seed = 0, not 1" in capsys.readouterr().err
    again = (*words, "--steps", 1)
    assert run(*again, "--pixels", "redraw") == 2
    assert "holds an evaluation with pixels = 'keep', not 'redraw'" in capsys.readouterr().err
    config = json.loads((out / NOTE).read_text(encoding="utf-8"))
    del config["pixels"], config["look"]
    (out / NOTE).write_text(json.dumps(config), encoding="utf-8")
    assert run(*again) == 2 and "says nothing of pixels, which is 'keep' now" in capsys.readouterr().err


def test_pixels_that_are_kept_are_measured_as_they_are(records, pipeline):
    kept, bare = (
        evaluate(pipeline, records[:2], ["decomposition_mask"], baselines=False, pixels=pixels)
        for pixels in ("keep", "redraw")
    )
    # The composite on file has 8 bits.
    assert kept.mean("decomposition_mask", "model", "recomposition") < 0.5 / 255
    assert bare.mean("decomposition_mask", "model", "recomposition") > 0.01


def damaged(dataset: Path, place: Path) -> Path:
    """A copy with a picture that is no picture, one that ends early, one that is missing, and a broken line."""
    copy = place / "damaged"
    shutil.copytree(dataset, copy)
    edit_records(copy, lambda rows: rows.sort(key=lambda row: row["id"]))
    records = read_records(copy).records
    records[0].pictures["composite"].write_bytes(b"junk")
    cut = records[1].pictures["composite"]
    cut.write_bytes(cut.read_bytes()[:200])
    records[2].pictures["composite"].unlink()
    with (copy / "triplets.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "half')
    return copy


def test_bad_pictures_are_named_and_left_out(dataset, tmp_path, capsys):
    copy, out = damaged(dataset, tmp_path), tmp_path / "out"
    assert run("evaluate", copy, "--split", "all", "--task", "matting_auto", "--no-baselines", "--out", out) == 0
    names = [json.loads(line)["id"] for line in (dataset / "triplets.jsonl").read_text().splitlines()]
    problems = json.loads((out / "problems.json").read_text(encoding="utf-8"))
    reasons = {problem.get("record") or problem["id"]: problem["reason"] for problem in problems}
    first, second, third = sorted(names)[:3]
    assert "composite" in reasons[first] and "composite" in reasons[second] and "missing picture" in reasons[third]
    assert "broken JSON" in reasons[""] and len(problems) == 4
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))["tasks"]["matting_auto"]
    assert report["records"] == len(names) - 3 and report["left_out"] == 2
    assert "4 problems" in capsys.readouterr().out


def test_a_stopped_run_goes_on_and_gives_the_same(records, pipeline, tmp_path):
    whole = evaluate(pipeline, records[:3], GUIDED, out=_folder(tmp_path / "whole"), baselines=False)
    out, asked = _folder(tmp_path / "stopped"), []

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, records[:3], GUIDED, out=out, baselines=False, progress=stop)
    with (out / LINES).open("a") as file:
        file.write('{"record": "half a li')  # as kill -9 leaves it
    going_on = lambda: asked.append(1) or pipeline  # noqa: E731
    resumed = evaluate(going_on, records[:3], GUIDED, out=out, baselines=False)
    assert [row["values"] for row in resumed.rows] == [row["values"] for row in whole.rows]
    assert len((out / LINES).read_text().splitlines()) == 6 and len(asked) == 1
    evaluate(lambda: pytest.fail("nothing is left to do"), records[:3], GUIDED, out=out, baselines=False)


def test_a_mended_picture_is_measured_the_next_time(dataset, pipeline, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    record = read_records(copy).records[0]
    good = record.pictures["composite"].read_bytes()
    record.pictures["composite"].write_bytes(b"junk")
    out = _folder(tmp_path / "out")
    first = evaluate(pipeline, [record], ["matting_auto"], out=out, baselines=False)
    assert first.methods("matting_auto") == () and "| - |" in first.table()
    record.pictures["composite"].write_bytes(good)
    second = evaluate(pipeline, [record], ["matting_auto"], out=out, baselines=False)
    assert not second.problems() and second.methods("matting_auto")[0] == "model"


def test_a_full_disk_is_one_sentence(records, pipeline, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        if self.name == LINES:
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    real = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OmniAlphaError, match=r"No space left on device\. Make room; the same command goes on"):
        evaluate(pipeline, records[:1], ["matting_auto"], out=_folder(tmp_path / "out"), baselines=False)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_trimap_that_says_nothing_is_named(records, pipeline, monkeypatch):
    picture = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    for value, lacks in ((0.5, "object"), (1.0, "background"), (0.0, "object")):
        with pytest.raises(OmniAlphaError, match=f"closed_form cannot start: the trimap marks no sure {lacks}"):
            cut_out("closed_form", picture, torch.full((16, 16), value))
    from omnialpha.data import guides

    monkeypatch.setitem(guides.DRAW, "trimap", lambda alpha, rng: 0 * alpha + 0.5)
    results = evaluate(pipeline, records[:1], ["matting_trimap"])
    assert results.methods("matting_trimap") == ("model", "opaque")
    assert {problem["method"] for problem in results.problems()} == {"closed_form", "knn"}
    assert results.beats("matting_trimap", "knn") is None


@pytest.mark.parametrize("method", ["closed_form", "knn"])
def test_classical_matting_finds_a_plain_object(records, method):
    case = make_case(records[0], "matting_trimap", 0)
    _, foreground = cut_out(method, case.inputs[0], case.inputs[1][0])
    naive = values_of(case, [NAIVE["opaque"](case)])["foreground_mse"]
    assert values_of(case, [[foreground]])["foreground_mse"] < 0.05 * naive


def test_means_are_paired_where_a_method_failed():
    rows = [
        {
            "record": "a",
            "task": "matting_auto",
            "pixels": 1,
            "values": {"model": {"foreground_mse": 0.1}, "knn": {"foreground_mse": 0.2}},
        },
        {"record": "b", "task": "matting_auto", "pixels": 1, "values": {"model": {"foreground_mse": 0.9}}},
    ]
    results = Results(rows)
    pair = results.paired("matting_auto", "knn", "foreground_mse")
    assert pair["model"] == 0.1 and pair["knn"] == 0.2 and pair["records"] == 1
    assert (
        results.beats("matting_auto", "knn") is True and results.mean("matting_auto", "model", "foreground_mse") == 0.5
    )
    assert "200 (1)" in results.table(), "a mean over fewer records says so"


def test_other_kinds_of_records(dataset, pipeline, tmp_path):
    front, back, shown = (
        f"{kind}/000000-0{end}.png" for kind, end in (("foreground", ""), ("background", ""), ("composite", "0"))
    )
    lines = [
        {"id": "1", "prompt": "cut it out", "input_images": [shown], "output_images": [front]},
        {"id": "2", "layers": [back, front, front], "composite": shown},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = evaluate(pipeline, read_records(path, dataset).records)
    assert results.tasks == ("supervised", "stack") and not results.problems()
    assert results.mean("stack", "copy", "recomposition") == 0
    assert results.mean("stack", "model", "layers_nine_psnr") > 5 and "stack" in results.table(every=True)


def test_two_folders_of_pictures(records, tmp_path, capsys):
    folders = {name: _folder(tmp_path / name) for name in ("predicted", "truth", "trimaps")}
    for k, record in enumerate(records[:3]):
        case = make_case(record, "matting_trimap", 0)
        worse = case.targets[0].clone()
        worse[3] = (worse[3] + k * 51 / 255).clamp(0, 1)
        for name, layer in zip(folders, (worse, case.targets[0], case.inputs[1])):
            write_layer(layer, folders[name] / f"{k}.png")
    write_layer(torch.ones(4, 8, 8), folders["truth"] / "alone.png")
    for name, side in zip(folders, (8, 9, 8)):
        write_layer(torch.ones(4, side, side), folders[name] / "odd.png")
        (folders[name] / "broken.png").write_bytes(b"junk")
    words = [word for name, folder in folders.items() for word in (f"--{name}", folder)]
    assert run("evaluate", *words, "--out", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out/results.json").read_text())
    rows = {row["record"]: row for row in report["records"]}
    values = rows["1"]["values"]["predicted"]
    assert rows["0"]["values"]["predicted"]["picture_sad"] == 0 < values["picture_sad_unknown"] < values["picture_sad"]
    assert "differ in size" in rows["odd"]["problem"] and "broken.png" in rows["broken"]["problem"]
    assert {problem["record"] for problem in report["problems"]} == {"alone", "odd", "broken"}
    assert "SAD" in capsys.readouterr().out
    assert run("evaluate", *words[:4], "--mattes", "--out", tmp_path / "grey") == 0
    grey = json.loads((tmp_path / "grey/results.json").read_text())["records"]
    assert set(grey[0]["values"]["predicted"]) == {f"picture_{name}" for name in ("mse", "mad", "sad", "grad", "conn")}


@pytest.mark.parametrize(("words", "said"), [
    ((), "Give a data set, or two folders"),
    (("--predicted", "x"), "Give a data set, or two folders"),
    (("DATA", "--truth", "x"), "Give a data set, or two folders"),
    (("DATA", "--task", "matting"), "Unknown task 'matting'"),
    (("DATA", "--task", "stack"), "No record can serve stack; the data can serve: bg_to_fg"),
    (("DATA", "--split", "test"), "no test record"),
    (("DATA", "--steps", "0"), "steps is 0, expected 1 or more"),
    (("DATA", "--count", "0"), "count is 0, expected 1 or more"),
    (("DATA", "--guidance", "nan"), "guidance is nan"),
    (("DATA", "--checkpoint", "nowhere"), "nowhere"),
    (("nowhere",), "does not exist"),
])  # fmt: skip
def test_bad_requests_are_refused_before_any_work(dataset, tmp_path, capsys, words, said):
    words = [dataset if word == "DATA" else word for word in words]
    split = [] if "--split" in words else ["--split", "all"]
    assert run("evaluate", *words, *split, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_left_alone(dataset, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert run("evaluate", dataset, "--split", "all", "--out", tmp_path) == 2
    assert "has something in it that is not an evaluation" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_open_tasks_are_scored_by_several_samples(records):
    open_tasks = {task for task in TASKS if is_open(task)}
    assert open_tasks == {task.id for task in TASKS.values() if task.family in ("generation", "completion")}
    case = make_case(records[0], "bg_to_fg", 0)
    one, other = NAIVE["empty"](case), [layer.flip(-1) for layer in case.targets]
    energy = measure("energy", "bg_to_fg").value
    alone = [energy(case, [layers]) for layers in (one, other)]
    assert energy(case, [one, other]) < sum(alone) / 2
    assert set(METHODS) >= {name for task in TASKS for name in naive_methods(task)}
