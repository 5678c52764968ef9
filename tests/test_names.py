"""What layers are called: one dialect for the viewer, layered files and files of their own."""

import pytest

from omnialpha.errors import OmniAlphaError
from omnialpha.files.formats import paths_of
from omnialpha.files.names import distinct, file_name, is_reserved, label_layers, parse_names
from omnialpha.tasks import TASKS


@pytest.mark.parametrize(
    "text, names",
    [
        ("", ["background", "layer 1", "layer 2"]),
        ("sky, sun, cat", ["sky", "sun", "cat"]),
        ("sky\nsun, low\r\ncat\n", ["sky", "sun, low", "cat"]),
        ("sky,, cat", ["sky", "layer 1", "cat"]),
        ("sky\n\ncat", ["sky", "layer 1", "cat"]),
        (" sky \n\n sun\n\n cat ", ["sky", "sun", "cat"]),
    ],
)
def test_saved_and_shown_layers_read_a_text_alike(text, names):
    assert parse_names(text, 3) == label_layers(text, 3) == names


@pytest.mark.parametrize(
    "text, names",
    [
        (",sun", ["background", "sun", "layer 2"]),
        ("sky", ["sky", "layer 1", "layer 2"]),
        ("a,b,c,d", ["a", "b", "c"]),
    ],
)
def test_only_looking_takes_any_number_of_names(text, names):
    assert label_layers(text, 3) == names
    with pytest.raises(OmniAlphaError, match="for 3 layers"):
        parse_names(text, 3)


def test_a_single_layer_may_have_a_comma_in_its_name():
    assert parse_names("sky, with sun", 1) == label_layers("sky, with sun", 1) == ["sky, with sun"]
    assert parse_names("", 1) == ["layer 1"] and label_layers("", 0) == []


def test_layers_keep_the_names_they_came_with():
    assert parse_names("", 2, ("Himmel", "树")) == label_layers(" ", 2, ("Himmel", "树")) == ["Himmel", "树"]
    assert parse_names("sky,", 2, ("Himmel", "树")) == ["sky", "树"]
    assert parse_names("", 2, ("one",)) == ["background", "layer 1"], "names of other layers"
    assert parse_names("", 2, ("a", "a")) == ["a", "a 2"]


def test_names_that_would_be_one_file_are_refused():
    for text in ("a\nA", "a/b, a:b", "caf\u00e9\ncafe\u0301"):
        with pytest.raises(OmniAlphaError, match="share the file name"):
            parse_names(text, 2)
    assert distinct(["a", "A", "", "a"]) == ["a", "A 2", "layer", "a 3"]


@pytest.mark.parametrize(
    "name, kept",
    [
        ("sky", "sky"),
        (" . sky . ", "sky"),
        ("v1.2 final", "v1.2 final"),
        ("a/b\\c:d\x00", "a_b_c_d_"),
        ("...", "_"),
        ("", "_"),
        ("x" * 300, "x" * 248),
        ("x" * 246 + " . y", "x" * 246),
        ("x" * 246 + "ü" * 9, "x" * 246 + "ü"),
    ],
)
def test_file_names_lose_what_no_system_takes_and_what_is_too_long(name, kept):
    assert file_name(name, "1_", ".webp") == f"1_{kept}.webp"
    assert len(file_name(name, "1_", ".webp").encode()) <= 255


def test_names_that_differ_by_dots_alone_are_one_file():
    with pytest.raises(OmniAlphaError, match="share the file name 'sky'"):
        parse_names("sky\n.sky.", 2)


def test_numbers_of_equal_names_find_room():
    long = "x" * 400
    first, second = distinct([long, long])
    assert first == "x" * 247 and second == f"{first} 2"


def test_roles_are_called_what_people_see():
    assert TASKS["decomposition_auto"].names == ("background", "object")
    assert TASKS["matting_auto"].names == ("object",) and TASKS["fg_to_full"].names == ("composite",)
    assert TASKS["matting_auto"].targets == ("foreground",), "ids stay"


@pytest.mark.parametrize("name", ["con", "CON", "nul.png", "aux.tar.gz", "com1", "LPT9.x", "com²", "conin$", "prn "])
def test_names_of_devices_are_not_files(tmp_path, name):
    assert is_reserved(name) and not is_reserved(f"a{name}") and not is_reserved("console.png")
    assert file_name(name, after=".png").startswith("_")
    (path,) = paths_of(tmp_path / "s", [name], "png")
    assert not is_reserved(path.name)
    with pytest.raises(OmniAlphaError, match="for a device"):
        paths_of(tmp_path / name.split(".")[0], ["a"], "psd")


@pytest.mark.parametrize("name", ["x" * 400, "ü" * 200, "树" * 100, "a" + "😀" * 90], ids=len)
def test_file_names_end_at_255_bytes_and_whole_characters(tmp_path, name):
    (path,) = paths_of(tmp_path / "prefix_00001", [name], "png")
    assert 250 < len(path.name.encode()) <= 255 and path.name.endswith(".png")
    assert path.name.removeprefix("prefix_00001_").removesuffix(".png") in name
    path.write_bytes(b"")
    alike = [f"{name}a", f"{name}b"]
    assert len(paths_of(tmp_path / "s", alike, "psd")) == 1, "a layered file holds names of any length"
    with pytest.raises(OmniAlphaError, match="begin alike"):
        paths_of(tmp_path / "s", alike, "png")
    with pytest.raises(OmniAlphaError, match="too long"):
        paths_of(tmp_path / ("x" * 251), [name], "png")
    with pytest.raises(OmniAlphaError, match="255 are the most"):
        paths_of(tmp_path / ("x" * 252), [name], "psd")
