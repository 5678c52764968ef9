"""Objects, backgrounds, guides and triplets."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from omnialpha.data.backgrounds import (
    HELD_OUT,
    ODD_PHOTOS,
    PATTERNS,
    PHOTOS,
    crop_photo,
    draw_texture,
    load_photos,
    smooth_noise,
)
from omnialpha.data.compose import CHANCES, EFFECTS, Composer, ObjectBank, composite
from omnialpha.data.examples import opaque
from omnialpha.data.guides import draw_coarse_mask, draw_mask, draw_trimap
from omnialpha.data.objects import (
    IMAGES,
    NAMES,
    ObjectFile,
    base_code,
    find_objects,
    folder_objects,
    glyph_objects,
    load_object,
    split_of,
)
from omnialpha.errors import OmniAlphaError


def disc(side: int = 128) -> Image.Image:
    image = Image.new("RGBA", (side, side))
    ImageDraw.Draw(image).ellipse((8, 8, side - 9, side - 9), fill=(200, 60, 30, 255))
    return image


@pytest.fixture
def composer(tmp_path):
    disc().save(tmp_path / "disc.png")
    bank = ObjectBank([ObjectFile("a red disc", "train", tmp_path / "disc.png")])
    return lambda seed=0, chances=None: Composer(bank, np.random.default_rng(seed), chances)


def test_find_objects_names_and_splits(tmp_path):
    pictures = tmp_path / IMAGES / "assets"
    pictures.mkdir(parents=True)
    for code in ("1f436", "1f44d", "1f44d-1f3fb", "1f44d-1f3ff", "0000"):
        disc().save(pictures / f"{code}.webp")
    (tmp_path / NAMES).mkdir()
    table = {"\U0001f436": {"name": "Dog face"}, "\U0001f44d": {"name": "thumbs up"}}
    (tmp_path / NAMES / "data-by-emoji.json").write_text(json.dumps(table))
    found = find_objects(tmp_path)
    assert {"dog face", "thumbs up"} == {entry.name for entry in found}, "a picture without a name is left out"
    assert len({entry.split for entry in found if entry.name == "thumbs up"}) == 1, "tones share a split"


def test_missing_packages_say_how_to_install_them(tmp_path):
    with pytest.raises(OmniAlphaError, match="npm install"):
        find_objects(tmp_path)


def test_split_ignores_tone_and_variation():
    assert base_code("1f44d-1f3fb-fe0f") == "1f44d"
    assert split_of("1f44d-1f3fb") == split_of("1f44d")


def test_empty_object_is_refused(tmp_path):
    Image.new("RGBA", (16, 16)).save(tmp_path / "nothing.png")
    with pytest.raises(OmniAlphaError, match="alpha is empty"):
        load_object(ObjectFile("nothing", "train", tmp_path / "nothing.png"), 32)


def test_every_photo_has_a_free_licence():
    for photos in (PHOTOS, ODD_PHOTOS):
        assert all(licence == "CC0" or licence.startswith("public domain") for _, licence in photos.values())
    assert not set(PHOTOS) & set(ODD_PHOTOS) and set(HELD_OUT) < set(PHOTOS)


@pytest.mark.parametrize("split", ["train", "test", "odd"])
def test_photographs_ship_with_their_package(split):
    sizes = {photo.caption: photo.image.size for photo in load_photos(split)}
    assert sizes and all(min(size) >= 100 for size in sizes.values())


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 32)])
def test_backgrounds_are_pictures(size):
    rng = np.random.default_rng(1)
    photo = Image.new("RGB", (50, 40), (10, 200, 30))
    for picture in [crop_photo(photo, size, rng), *(draw_texture(size, rng)[0] for _ in range(20))]:
        assert picture.shape == (*size, 3) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
    for pattern in PATTERNS.values():
        assert np.isfinite(pattern(size, rng)).all()
    noise = smooth_noise(size, rng)
    assert noise.shape == size and noise.min() >= 0 and noise.max() <= 1


def test_guides_tell_the_truth():
    alpha = np.asarray(disc(96), np.float32)[..., 3] / 255
    for seed in range(20):
        rng = np.random.default_rng(seed)
        trimap = draw_trimap(alpha, rng)
        assert set(np.unique(trimap)) <= {0, 0.5, 1}
        assert alpha[trimap == 1].min() >= 250 / 255 and alpha[trimap == 0].max() <= 4 / 255
        assert set(np.unique(draw_mask(alpha, rng))) == {0, 1}
        rough = draw_coarse_mask(alpha, rng)
        assert rough.shape == alpha.shape and rough.min() >= 0 and rough.max() <= 1
        assert rough[alpha > 0.5].mean() > 0.7, "a rough mask covers most of the object"
    assert not draw_coarse_mask(np.zeros((32, 32), np.float32), np.random.default_rng(0)).any()


@pytest.mark.parametrize(("level", "kind"), [(255, 1), (250, 1), (249, 0.5), (128, 0.5), (5, 0.5), (4, 0), (0, 0)])
def test_trimap_is_sure_of_the_last_five_levels(level, kind):
    alpha = np.full((24, 40), level, np.uint8).astype(np.float32) / 255
    assert np.all(draw_trimap(alpha, np.random.default_rng(1)) == kind)


class Drawn:
    """A random generator whose draws lie at one place of their range, from 0 to 1; it remembers the ranges."""

    def __init__(self, share: float):
        self.share, self.ranges = share, []

    def uniform(self, low: float, high: float) -> float:
        """One draw."""
        self.ranges.append((low, high))
        return low + self.share * (high - low)


@pytest.mark.parametrize(("share", "band"), [(0, 2), (1, 16)])
def test_trimap_widens_by_a_pixel_to_a_sixteenth_of_the_side(share, band):
    alpha = np.zeros((128, 200), np.float32)
    alpha[:, 100:] = 1
    drawn = Drawn(share)
    trimap = draw_trimap(alpha, drawn)
    assert drawn.ranges == [(1, 128 / 16)]
    assert np.array_equal(np.unique(trimap[:, 100 - band // 2 : 100 + band // 2]), [0.5])
    assert np.all(trimap[:, : 100 - band // 2] == 0) and np.all(trimap[:, 100 + band // 2 :] == 1)


def test_masks_cut_at_a_third_to_over_half_of_the_strongest_alpha():
    alpha = np.linspace(0, 0.8, 101, dtype=np.float32)[None].repeat(4, 0)
    for share, least in ((0, 0.3), (1, 0.6)):
        drawn = Drawn(share)
        mask = draw_mask(alpha, drawn)
        assert drawn.ranges == [(0.3, 0.6)]
        assert np.array_equal(mask[0], alpha[0] > least * alpha.max())


def test_trimap_measures_the_distance_from_the_edge():
    alpha = np.zeros((64, 64), np.float32)
    alpha[:, 32:] = 1
    trimap = draw_trimap(alpha, np.random.default_rng(0))
    band = np.flatnonzero(trimap[10] == 0.5)
    assert len(set(map(tuple, trimap.tolist()))) == 1, "the same in every row"
    assert np.array_equal(band, np.arange(band[0], band[-1] + 1)) and band[0] < 32 <= band[-1]
    assert abs((32 - band[0]) - (band[-1] - 31)) <= 0, "as far to both sides"
    assert not (draw_trimap(np.ones((32, 32), np.float32), np.random.default_rng(0)) != 1).any()


def test_composer_is_reproducible_and_consistent(composer):
    first, second = composer(3), composer(3)
    scene = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    for size in ((64, 64), (64, 80)):
        layer, again = first.foreground(size), second.foreground(size)
        assert np.array_equal(layer.pixels, again.pixels) and layer.name == "a red disc" and layer.tags == again.tags
        assert layer.pixels.shape == (*size, 4) and layer.pixels.min() >= 0 and layer.pixels.max() <= 1
        assert not layer.pixels[layer.pixels[..., 3] == 0].any(), "hidden pixels are black"
    layer = composer(3).foreground((64, 64)).pixels
    assert np.allclose(composite(layer, scene)[layer[..., 3] == 0], scene[layer[..., 3] == 0])
    assert not np.array_equal(composer(4).foreground((64, 64)).pixels, layer)


def test_tilting_cuts_nothing_off(tmp_path):
    Image.new("RGBA", (64, 64), (9, 90, 200, 255)).save(tmp_path / "tile.png")
    bank = ObjectBank([ObjectFile("a tile", "train", tmp_path / "tile.png")])
    for seed in range(6):
        layer = Composer(bank, np.random.default_rng(seed), {"tilt": 1.0}).foreground((128, 128)).pixels
        seen = layer[..., 3] > 0.5
        rows = seen.sum(1)[seen.any(1)]
        assert rows[0] < rows.max() / 3, "a tilted square ends above in a corner, not in an edge"


def test_upright_objects_keep_their_colour(composer):
    layer = composer(chances={}).foreground((64, 64)).pixels
    inside = layer[layer[..., 3] == 1][:, :3] * 255
    assert np.abs(np.median(inside, 0) - (200, 60, 30)).max() <= 1  # scaling rings a little at the rim


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_changes_the_layer_and_says_so(composer, effect):
    scene = np.full((64, 64, 3), (0.1, 0.3, 0.9), np.float32)
    plain = composer(5, {}).foreground((64, 64), scene=scene)
    changed = composer(5, {effect: 1.0}).foreground((64, 64), scene=scene)
    assert plain.tags == [] and changed.tags == [effect]
    assert np.abs(plain.pixels - changed.pixels).max() > 0.02
    assert changed.pixels.min() >= 0 and changed.pixels.max() <= 1
    soft = lambda layer: ((layer[..., 3] > 0.05) & (layer[..., 3] < 0.95)).sum()  # noqa: E731
    if effect in ("hair", "blur", "glass", "fade", "shadow"):
        assert soft(changed.pixels) > soft(plain.pixels)
    assert set(EFFECTS) <= set(CHANCES)


def test_folder_objects_take_their_names_from_notes_or_files(tmp_path):
    disc().save(tmp_path / "red_round-thing.png")
    disc().save(tmp_path / "b.webp")
    (tmp_path / "b.txt").write_text("a coin of gold\nsecond line\n")
    assert [entry.name for entry in folder_objects(tmp_path)] == ["a coin of gold", "red round thing"]
    Image.new("RGB", (8, 8)).save(tmp_path / "flat.png")
    flat = next(entry for entry in folder_objects(tmp_path) if entry.name == "flat")
    with pytest.raises(OmniAlphaError, match="no alpha"):
        load_object(flat, 32)
    with pytest.raises(OmniAlphaError, match="no folder"):
        folder_objects(tmp_path / "nowhere")


def test_glyphs_are_objects_too():
    entries = glyph_objects()
    pixels = load_object(entries[0], 64)
    assert len({entry.glyph for entry in entries}) == len(entries) > 90
    assert {"letter A", "number 7", "umbrella"} <= {entry.name for entry in entries}
    assert 0.1 < (pixels[..., 3] > 128).mean() < 0.9
    fonts = {path: ImageFont.truetype(str(path), 20) for path in {entry.path for entry in entries}}
    shape = lambda path, glyph: bytes(fonts[path].getmask(glyph))  # noqa: E731
    assert not [e.glyph for e in entries if shape(e.path, e.glyph) == shape(e.path, "\uffff")], "lacking in the font"


def test_opaque():
    assert np.array_equal(opaque(np.full((2, 3), 0.5, np.float32))[0, 0], [0.5, 0.5, 0.5, 1])
