"""Objects, backgrounds, guides and triplets."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from omnialpha.data.backgrounds import PATTERNS, PHOTOS, crop_photo, draw_texture, smooth_noise
from omnialpha.data.guides import draw_coarse_mask, draw_mask, draw_trimap
from omnialpha.data.objects import IMAGES, NAMES, base_code, find_objects, load_object, split_of
from omnialpha.data.triplets import Composer, ObjectBank, composite, opaque
from omnialpha.errors import OmniAlphaError


def disc(side: int = 128) -> Image.Image:
    image = Image.new("RGBA", (side, side))
    ImageDraw.Draw(image).ellipse((8, 8, side - 9, side - 9), fill=(200, 60, 30, 255))
    return image


@pytest.fixture
def composer(monkeypatch):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8))
    monkeypatch.setattr("omnialpha.data.triplets.load_photos", lambda split: [photo])
    bank = ObjectBank(np.stack([np.asarray(disc().convert("RGBa"))]), ["a red disc"])
    return lambda seed=0, vary=True: Composer(bank, "train", seed, vary)


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
        load_object(tmp_path / "nothing.png", 32)


def test_every_photo_has_a_free_licence():
    assert all(licence == "CC0" or licence.startswith("public domain") for licence in PHOTOS.values())


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 32)])
def test_backgrounds_are_pictures(size):
    rng = np.random.default_rng(1)
    photo = Image.new("RGB", (50, 40), (10, 200, 30))
    for picture in [crop_photo([photo], size, rng), *(draw_texture(size, rng) for _ in range(20))]:
        assert picture.shape == (*size, 3) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
    for pattern in PATTERNS:
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


def test_composer_is_reproducible_and_consistent(composer):
    first, second = composer(3), composer(3)
    for size in ((64, 64), (64, 80)):
        (layer, name), (again, _) = first.foreground(size), second.foreground(size)
        assert np.array_equal(layer, again) and name == "a red disc"
        assert layer.shape == (*size, 4) and layer.min() >= 0 and layer.max() <= 1
        assert not layer[layer[..., 3] == 0].any(), "hidden pixels are black"
        scene = first.background(size)
        second.background(size)
        merged = composite(layer, scene)
        assert np.allclose(merged[layer[..., 3] == 0], scene[layer[..., 3] == 0])
        assert set(first.guides(layer[..., 3])) == {"trimap", "mask", "coarse_mask"}
        second.guides(layer[..., 3])
    assert not np.array_equal(composer(4).foreground((64, 64))[0], layer[:64, :64])


def test_upright_objects_keep_their_colour(composer):
    layer, _ = composer(vary=False).foreground((64, 64))
    inside = layer[layer[..., 3] == 1][:, :3] * 255
    assert np.abs(np.median(inside, 0) - (200, 60, 30)).max() <= 1  # scaling rings a little at the rim


def test_opaque():
    assert np.array_equal(opaque(np.full((2, 3), 0.5, np.float32))[0, 0], [0.5, 0.5, 0.5, 1])
