"""From a command's words to jobs: inputs by title, patterns, tables, and names of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretend import WORKFLOW

from omnialpha.batch.jobs import File, make_jobs
from omnialpha.batch.naming import fill, numbered, result_path
from omnialpha.batch.rows import from_manifest, from_patterns
from omnialpha.batch.workflow import Target, Workflow
from omnialpha.errors import OmniAlphaError

ROOT = Path(__file__).resolve().parent.parent
NAME = "{folder}/{job}-{index:02}"
IMAGE = Target("1", "image")


@pytest.fixture
def workflow() -> Workflow:
    return Workflow(WORKFLOW)


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    for name in ("in/a.png", "in/b.JPG", "in/sub/a.png", "in/1.txt", "masks/a.png", "masks/b.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two_loaders(*titles: str) -> Workflow:
    return Workflow(
        {
            str(i): {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": title}}
            for i, title in enumerate(titles, 1)
        }
    )


def test_inputs_are_found_by_title_id_and_role(workflow):
    for name in ("Your picture.image", "your picture", "1", "1.image", "image"):
        assert workflow.find(name) == IMAGE
    assert workflow.find("Cut.strength") == Target("2", "strength")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Nix.image", "no node called 'Nix.image'.*1 'Your picture': image"),
        ("Cut.nix", "no input 'nix'; it has strength, on, text"),
        ("Cut.image", "connected to node 1"),
        ("Cut", "has 3 inputs: strength, on, text"),
        ("guide", "no input for the guide; looked for LoadImageMask.image"),
    ],
)
def test_what_cannot_be_found_lists_what_there_is(workflow, name, words):
    with pytest.raises(OmniAlphaError, match=f"(?s){words}"):
        workflow.find(name)


def test_titles_tell_pictures_from_guides():
    assert two_loaders("The photo", "Trimap").find("image") == Target("1", "image")
    assert two_loaders("The photo", "Trimap").find("guide") == Target("2", "image")
    assert two_loaders("x", "Image").find("image") == Target("2", "image"), "the role's own name as a title decides"
    with pytest.raises(OmniAlphaError, match=r"'a.image' \(node 1\), 'b.image' \(node 2\)"):
        two_loaders("a", "b").find("image")
    with pytest.raises(OmniAlphaError, match="2 nodes for 'a': 1, 2"):
        two_loaders("a", "a").find("a")


@pytest.mark.parametrize("path", sorted((ROOT / "workflows/api").glob("*.json")), ids=lambda path: path.stem)
def test_roles_of_our_own_workflows(path):
    workflow = Workflow.read(path)
    takes = {"generation": {"text"}, "removal": {"image", "guide", "text"}}
    for role in next((roles for name, roles in takes.items() if name in path.stem), {"image", "text"}):
        assert workflow.value(workflow.find(role)) is not None


def test_what_is_no_workflow_says_so(tmp_path):
    for content, words in (
        ({"nodes": [], "links": []}, r"Export \(API\)"),
        ([], "expected a JSON object"),
        ({"1": {"inputs": {}}}, "entry '1' has no class_type"),
        ({"1": {"class_type": "X", "inputs": {"a": ["7", 0]}}}, "comes from node 7"),
    ):
        (tmp_path / "w.json").write_text(json.dumps(content))
        with pytest.raises(OmniAlphaError, match=words):
            Workflow.read(tmp_path / "w.json")
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(OmniAlphaError, match="not valid JSON"):
        Workflow.read(tmp_path / "w.json")
    with pytest.raises(OmniAlphaError, match="Cannot read"):
        Workflow.read(tmp_path / "none.json")


def test_words_become_what_the_workflow_has(workflow):
    convert = lambda name, word: workflow.convert(Target("2", name), word)  # noqa: E731
    assert (convert("strength", "3"), convert("strength", "0.5"), convert("on", "no")) == (3, 0.5, False)
    assert convert("text", "3") == "3"
    for name in ("strength", "on"):
        with pytest.raises(OmniAlphaError, match=f"'much' is no value for 'Cut.{name}'"):
            convert(name, "much")


def test_whose_pixels_is_found_by_name_and_checked():
    graph = Workflow({"5": {"class_type": "OmniAlphaTask", "inputs": {"pixels": "keep", "look": "close"}}})
    (job,) = make_jobs(graph, from_patterns({"pixels": "redraw", "5.look": "whole"}), NAME)
    assert job.values == {Target("5", "pixels"): "redraw", Target("5", "look"): "whole"}
    for name, word, words in (("pixels", "own", "keep, redraw"), ("look", "near", "close, whole")):
        with pytest.raises(OmniAlphaError, match=f"'{word}' is no value for .*{name}.*, expected one of: {words}"):
            make_jobs(graph, from_patterns({name: word}), NAME)


def test_changes_leave_the_workflow_alone(workflow):
    before = json.dumps(WORKFLOW)
    assert workflow.changed({IMAGE: "new.png"})["1"]["inputs"]["image"] == "new.png"
    assert json.dumps(WORKFLOW) == before


def test_a_pattern_gives_a_job_per_file(workflow, pictures):
    values = {"image": "in/**/*.[pJ]*", "Cut.text": "a {stem} of {folder}, {number}"}
    jobs = make_jobs(workflow, from_patterns(values), NAME)
    assert [(job.folder, job.name, job.values[Target("2", "text")]) for job in jobs] == [
        ("", "a", "a a of , 1"),
        ("", "b", "a b of , 2"),
        ("sub", "a", "a a of sub, 3"),
    ]
    assert isinstance(jobs[0].values[IMAGE], File) and jobs[0].files[0].upload_name.endswith(".png")
    assert len({job.id for job in jobs}) == 3


def test_a_folder_gives_its_pictures(workflow, pictures):
    assert [job.name for job in make_jobs(workflow, from_patterns({"image": "in"}), NAME)] == ["a", "b"]


def test_a_guide_follows_the_picture(pictures):
    rows = list(from_patterns({"image": "in/*.png", "guide": "masks/{stem}.png"}))
    assert rows[0].values == {"image": "in/a.png", "guide": "masks/a.png"}


def test_texts_from_a_table(pictures, workflow):
    Path("t.csv").write_text('image,text\na.png,an apple\nb,"a pear, green"\n')
    rows = list(from_patterns({"image": "in", "text": "t.csv"}))
    assert [row.values["text"] for row in rows] == ["an apple", "a pear, green"]
    Path("t.csv").write_text("image,text\na.png,an apple\n")
    with pytest.raises(OmniAlphaError, match=r"t\.csv has no text for b\.JPG"):
        list(from_patterns({"image": "in", "text": "t.csv"}))
    Path("t.csv").write_text("file,words\na.png,an apple\n")
    with pytest.raises(OmniAlphaError, match="expected 'image'"):
        list(from_patterns({"image": "in", "text": "t.csv"}))


def test_texts_may_have_question_marks(workflow, pictures):
    values = {"image": "in/*.png", "Cut.text": "what is [this]? {{no}} *field*"}
    rows = list(from_patterns(values, lambda name: workflow.takes_file(workflow.find(name))))
    assert rows[0].values["Cut.text"] == "what is [this]? {no} *field*"
    assert [row.name for row in from_patterns({"Cut.text": "why?"}, lambda name: False)] == ["job"]


def test_a_file_whose_name_has_brackets_is_no_pattern(pictures):
    Path("in/a[1].png").write_bytes(b"x")
    assert [row.values for row in from_patterns({"image": "in/a[1].png"})] == [{"image": "in/a[1].png"}]


def test_one_file_is_one_job(workflow, pictures):
    assert [job.name for job in make_jobs(workflow, from_patterns({"image": "in/a.png"}), NAME)] == ["a"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image": "out/*.png"}, "No file matches 'out/\\*.png'"),
        ({"image": "in/*.png", "guide": "masks/*.png"}, "Only one input may have wildcards"),
        ({"image": "in/*.png", "guide": "masks/{nix}.png"}, r"\{nix\}, which is not known here; there are \{stem\}"),
        ({"image": "in/*.png", "Cut.image": "x"}, "is connected"),
        ({"image": "in/none.png"}, "cannot be read: No such file"),
        ({"image": "in/*.png", "Cut.strength": "big"}, "no value"),
    ],
)
def test_patterns_that_do_not_work(workflow, pictures, values, words):
    with pytest.raises(OmniAlphaError, match=words):
        make_jobs(workflow, from_patterns(values), NAME)


def test_manifests(workflow, pictures):
    (pictures / "in/jobs.csv").write_text(
        'job,Your picture.image,Cut.strength,Cut.text\nfirst,a.png,7,"x, {y}"\n,sub/a.png,,\n', encoding="utf-8-sig"
    )
    jobs = make_jobs(workflow, from_manifest("in/jobs.csv"), NAME)
    assert [job.name for job in jobs] == ["first", "a"]
    assert jobs[0].values == {IMAGE: jobs[0].files[0], Target("2", "strength"): 7, Target("2", "text"): "x, {y}"}
    assert list(jobs[1].values) == [IMAGE], "empty cells leave the workflow's own value"
    Path("jobs.jsonl").write_text('{"1": "in/a.png", "Cut.strength": 7, "Cut.on": false}\n\n{"Cut.text": "b"}\n')
    jobs = make_jobs(workflow, from_manifest("jobs.jsonl"), NAME)
    assert [job.name for job in jobs] == ["a", "job-00002"]
    assert jobs[0].values[Target("2", "on")] is False


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("j.csv", "image\n", "has no jobs"),
        ("j.csv", "image,Cut.text\na.png,b,c\n", "line 2: expected 2 cells"),
        ("j.csv", "image\nnone.png\n", "line 2: none.png"),
        ("j.csv", "nix\n1\n", "line 2: .*no node called 'nix'"),
        ("j.jsonl", "{\n", "line 1: not JSON"),
        ("j.jsonl", "[]\n", "line 1: expected an object"),
        ("j.csv", b"\xff\xfe\0", "UTF-8"),
    ],
)
def test_manifests_that_do_not_work(workflow, pictures, name, content, words):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OmniAlphaError, match=words):
        make_jobs(workflow, from_manifest(name), NAME)


def test_at_uploads_a_file_for_any_input(workflow, pictures):
    [job] = make_jobs(workflow, from_patterns({"Cut.text": "@in/{number}.txt"}, lambda name: False), NAME)
    assert job.values[Target("2", "text")] == job.files[0]


def test_ids_depend_on_what_decides_about_the_result(workflow, pictures):
    def ids(graph=WORKFLOW, **values):
        return [job.id for job in make_jobs(Workflow(graph), from_patterns({"image": "in/a.png", **values}), NAME)]

    titled = json.loads(json.dumps(WORKFLOW).replace("Your picture", "Another title"))
    other = json.loads(json.dumps(WORKFLOW).replace('"strength": 1', '"strength": 2'))
    assert ids() == ids(titled) != ids(other)
    assert ids() != ids(**{"Cut.text": "b"})
    before = ids()
    Path("in/a.png").write_bytes(b"changed")
    assert ids() != before


def test_the_same_job_twice_is_one_job_and_equal_names_are_refused(workflow, pictures):
    Path("j.jsonl").write_text('{"image": "in/a.png"}\n{"image": "in/a.png"}\n')
    assert len(make_jobs(workflow, from_manifest("j.jsonl"), NAME)) == 1
    Path("j.jsonl").write_text('{"image": "in/a.png"}\n{"image": "in/sub/a.png"}\n')
    with pytest.raises(OmniAlphaError, match="would have the same names"):
        make_jobs(workflow, from_manifest("j.jsonl"), NAME)
    assert len(make_jobs(workflow, from_manifest("j.jsonl"), "{number}-{job}")) == 2


def test_templates():
    assert fill("{{{index:03}}} {stem}", {"index": 7, "stem": "a"}) == "{007} a"
    assert result_path(NAME, {"folder": "x/y", "job": "a", "index": 1}, ".PNG") == "x/y/a-01.png"
    assert result_path("{job}", {"job": "../../etc/passwd"}, "") == ".._.._etc_passwd"
    assert result_path("{folder}/a", {"folder": "../../x"}, "") == "x/a"
    assert result_path("{job}", {"job": "a"}, ".png/../../x") == "a"
    assert result_path("{job}", {"job": "con"}, ".png") == "_con.png"
    assert [numbered("x/a.b.png", n) for n in (1, 2)] == ["x/a.b.png", "x/a.b-2.png"]


@pytest.mark.parametrize("template", ["/a/{job}", "../{job}", "a/../../{job}", "~/{job}", "_batch/{job}", "", "{nix}"])
def test_templates_that_lead_elsewhere(template):
    with pytest.raises(OmniAlphaError):
        result_path(template, {"job": "a"}, ".png")


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=20))
def test_names_stay_inside_the_folder_whatever_they_are_made_of(folder, job, ending):
    try:
        path = Path(result_path("{folder}/{job}", {"folder": folder, "job": job}, ending))
    except OmniAlphaError:
        return
    assert not path.is_absolute() and ".." not in path.parts and path.parts[0].lower() != "_batch"
    assert all(len(part.encode()) < 255 and "\0" not in part for part in path.parts)
