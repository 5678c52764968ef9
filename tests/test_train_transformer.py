"""Training the transformer: from a data set to a checkpoint, exact resume, LoRA, errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from making import make_triplets
from safetensors.torch import load_file

from omnialpha.cli.main import main
from omnialpha.config import read_config
from omnialpha.data.records import StackRecord, Supervised
from omnialpha.errors import OmniAlphaError
from omnialpha.model.tokens import patchify
from omnialpha.pipeline import OmniAlphaPipeline
from omnialpha.tasks import TASKS
from omnialpha.train.cache import words_of, write_cache
from omnialpha.train.config import CacheConfig, DataPart, Times, TransformerConfig
from omnialpha.train.flow_loss import draw_times, layer_loss, noise_generator, noisy_sequence
from omnialpha.train.sources import Batch, CacheSource, ImageSource, instruction_for
from omnialpha.train.transformer import train_transformer

ROOT = Path(__file__).resolve().parent.parent
MICRO_VAE = str(ROOT / "omnialpha/micro/vae")
TINY = {
    "blocks": 1,
    "heads": 2,
    "head_dim": 16,
    "rope_axes": [4, 6, 6],
    "text_width": 32,
    "text_layers": 1,
    "text_heads": 2,
    "vision_width": 32,
    "vision_layers": 1,
    "vocabulary": 700,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_triplets(tmp_path_factory.mktemp("data"), count=4)


@pytest.fixture(scope="module")
def cache(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "cache"
    config = CacheConfig((DataPart(str(dataset)),), MICRO_VAE, pixel_budget=64 * 64, size_multiple=16)
    for _ in write_cache(config, folder):
        pass
    return folder


def settings(cache, **changes) -> dict:
    return {
        "cache": str(cache),
        "build": TINY,
        "train_text_encoder": True,
        "steps": 6,
        "batch": 2,
        "log_every": 1,
        "save_every": 2,
        "weights": {"matting_trimap": 1, "decomposition_auto": 1},
    } | changes


def config_file(folder: Path, data: dict) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_every_task_gets_batches(cache):
    weights = dict.fromkeys(TASKS, 1.0)
    source = CacheSource(TransformerConfig(weights, 1, cache=str(cache), build=None, checkpoint="micro", batch=3))
    rng = np.random.default_rng(0)
    for task in TASKS.values():
        batch = source._draw(task.id, rng)
        assert len(batch) == 3 and len(batch.inputs) == len(task.inputs) and len(batch.targets) == len(task.targets)
        for latent, picture in zip(batch.inputs, batch.seen):
            assert latent.shape[:2] == (3, 16) and picture.dtype == torch.uint8 and len(picture) == 3


def test_cached_layers_belong_together(cache, dataset):
    """The composite's latent is that of the very picture the record names."""
    from omnialpha.data.examples import read_rgba, to_layer
    from omnialpha.layers.resizing import resize
    from omnialpha.model.vae import encode_layers, load_vae

    path = next(cache.glob("*-2.safetensors"))
    tensors, vae = load_file(path), load_vae(MICRO_VAE)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = json.loads(file.metadata()["ids"])
    for row in (0, 3):
        for role in ("composite", "foreground", "background"):
            record = next(
                json.loads(line)
                for line in (dataset / "triplets.jsonl").read_text().splitlines()
                if json.loads(line)["id"] == names[row]
            )
            latent = tensors[role][tensors[f"index.{role}"][row]].float()
            size = tuple(8 * side for side in latent.shape[1:])
            (wanted,) = encode_layers(vae, [resize(to_layer(read_rgba(dataset / record[role])), size)])
            assert (latent - wanted).abs().max() < 0.02  # float16


def test_sources_are_functions_of_step_and_process(cache, dataset):
    config = TransformerConfig({"matting_mask": 1, "removal_auto": 1}, 4, cache=str(cache), checkpoint="micro", batch=2)
    one, two = CacheSource(config), CacheSource(config)
    two.batches(0, 0)
    for a, b in zip(one.batches(3, 1), two.batches(3, 1)):
        assert a.instructions == b.instructions and all(map(torch.equal, a.targets, b.targets))
    assert [b.task for b in one.batches(5, 0)] == [b.task for b in one.batches(5, 1)], "processes share tasks"
    from omnialpha.model.vae import load_vae

    stream = CacheConfig((DataPart(str(dataset)),), MICRO_VAE, pixel_budget=64 * 64, size_multiple=16)
    live = TransformerConfig({"matting_mask": 1}, 4, stream=stream, checkpoint="micro", batch=2)
    first, again = (ImageSource(live, load_vae(MICRO_VAE)).batches(2, 0) for _ in range(2))
    assert len(first) == 2 and all(torch.equal(a.targets[0], b.targets[0]) for a, b in zip(first, again))


def test_layers_count_the_same_whatever_their_size():
    small, large = torch.ones(1, 1, 64), torch.zeros(1, 9, 64)
    loss = layer_loss(torch.zeros(1, 12, 64), [small, large])
    assert float(loss) == 0.5
    only_first = torch.tensor([16.0] + [0.0] * 15)
    assert float(layer_loss(torch.zeros(1, 1, 64), [small], only_first)) == 1


def test_channel_weights_fall_on_their_own_channels():
    weights = torch.arange(16.0)
    for channel in range(16):
        latent = torch.zeros(1, 16, 4, 6)
        latent[:, channel] = 1
        loss = layer_loss(torch.zeros(1, 6, 64), [patchify(latent)], weights)
        assert float(loss) == pytest.approx(channel / 16), "a token holds its latent's values channel by channel"


@pytest.mark.parametrize("shape", ["uniform", "late", "logit_normal"])
def test_noise_levels(shape):
    t = draw_times(4000, Times(shape, 0.25), noise_generator(0, 0, 0, 0))
    assert 0 < t.min() and t.max() == 1 and 0.2 < (t == 1).float().mean() < 0.3
    assert torch.equal(t, draw_times(4000, Times(shape, 0.25), noise_generator(0, 0, 0, 0)))


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_noise_is_the_same_from_release_to_release(seed):
    wanted = ((seed * 1_000_003 + 2) * 1000 + 3) * 1000 + 4
    assert noise_generator(seed, 2, 3, 4).initial_seed() == wanted % 2**63


def test_noise_takes_the_layers_to_what_is_asked_for():
    """Back along the velocity from x_t lie the layers, and ahead of it the noise, for each sample at its own level."""
    targets = [torch.randn(3, 16, 4, 6, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    inputs = [torch.randn(3, 16, 2, 8)]
    t = torch.tensor([0.1, 0.5, 1.0])
    noises = torch.Generator().manual_seed(5)
    batch = Batch("decomposition_auto", [""] * 3, inputs, [], targets)
    tokens, shapes, wanted = noisy_sequence(batch, t, torch.Generator().manual_seed(5))
    assert [tuple(shape) for shape in shapes[0]] == [(1, 2, 3), (1, 2, 3), (1, 1, 4)]
    assert tokens.shape == (3, 6 + 6 + 4, 64) and torch.equal(tokens[:, 12:], patchify(inputs[0]))
    level = t.view(3, 1, 1)
    for k, layer in enumerate(targets):
        noise = patchify(torch.randn(layer.shape, generator=noises))
        own = tokens[:, 6 * k : 6 * k + 6]
        torch.testing.assert_close(own - level * wanted[k], patchify(layer), atol=2e-6, rtol=0)
        torch.testing.assert_close(own + (1 - level) * wanted[k], noise, atol=2e-6, rtol=0)


def test_instruction_dropout_and_captions():
    rng = np.random.default_rng(0)
    words = {"background": "a beach"}
    told = {instruction_for("fg_to_bg", words, rng, 0.1, 0.5) for _ in range(200)}
    assert told == {"", "Draw a background for the object.", "Draw a background for the object. a beach"}
    assert instruction_for("supervised", "as I say", rng, 0, 0.5) == "as I say"


def test_stacks_and_prompts_keep_their_words_in_a_cache():
    """A stack without captions has as many layers as it has, and an empty prompt says nothing."""
    rng, here = np.random.default_rng(0), Path("x.png")
    stack = words_of(StackRecord("s", (here, here, here), here, captions=("a hill",)))
    assert stack == ["a hill", "", ""] and "3 layers" in instruction_for("stack", stack, rng, 0, 0.5)
    assert instruction_for("supervised", words_of(Supervised("p", "", (here,), (here,))), rng, 0, 0.5) == ""


def test_a_run_gives_a_checkpoint_that_works(cache, dataset, tmp_path):
    data = settings(cache, sheet_every=6, sheet_data=str(dataset), decoder_weighted=True, optimizer="muon")
    train_transformer(read_config(TransformerConfig, config_file(tmp_path, data)), tmp_path / "run", say=lambda _: None)
    log = lines(tmp_path / "run")
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6] and all("loss" in line for line in log)
    assert list((tmp_path / "run/sheets").glob("*.png")) and list((tmp_path / "run/events").iterdir())
    pipeline = OmniAlphaPipeline.from_pretrained(str(tmp_path / "run/checkpoint"))
    background, foreground = pipeline("decomposition_auto", images=torch.rand(4, 64, 64), steps=1)
    assert background.shape == foreground.shape == (4, 64, 64)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(cache, tmp_path):
    config = config_file(tmp_path, settings(cache, steps=40, save_every=5, log_every=2))
    command = [sys.executable, "-m", "omnialpha", "train", "transformer", str(config), "--threads", "1", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    started = subprocess.Popen([*command, str(killed)], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while started.poll() is None and len(list((killed / "state").glob("step-*"))) < 2:
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert lines(killed)[-1]["step"] < 40, "it was still running"
    for out in (killed, whole):
        subprocess.run([*command, str(out)], cwd=ROOT, check=True, capture_output=True)
    assert (killed / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    for name in ("transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (killed / "checkpoint" / name).read_bytes() == (whole / "checkpoint" / name).read_bytes()


def test_another_configuration_is_refused(cache, tmp_path):
    config = config_file(tmp_path, settings(cache, steps=1))
    assert main(["train", "transformer", str(config), "--out", str(tmp_path / "run")]) == 0
    assert main(["train", "transformer", str(config), "--out", str(tmp_path / "run"), "--set", "lr=1.0"]) == 2


def test_a_lora_does_in_the_pipeline_what_it_did_in_training(cache, tmp_path):
    data = settings(cache, checkpoint="micro", lora={"rank": 4}, steps=3, lr=0.05, ema=0.0)
    del data["build"], data["train_text_encoder"]
    config = read_config(TransformerConfig, config_file(tmp_path, data))
    train_transformer(config, tmp_path / "run", say=lambda _: None)
    file = tmp_path / "run/lora.safetensors"
    tensors = load_file(file)
    assert {float(value) for key, value in tensors.items() if key.endswith(".alpha")} == {4.0}
    assert any(value.abs().max() > 0 for key, value in tensors.items() if "lora_B" in key)
    picture = torch.rand(4, 64, 64)
    plain = OmniAlphaPipeline.from_pretrained("micro")
    merged = OmniAlphaPipeline.from_pretrained("micro", lora=str(file))
    own = plain.transformer.state_dict()
    for name, value in merged.transformer.state_dict().items():
        stem = f"transformer.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in tensors:
            wanted = own[name] + tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
            assert torch.allclose(value, wanted, atol=1e-5)
        else:
            assert torch.equal(value, own[name])
    first, second = (p("matting_auto", images=picture, seed=1, pixels="redraw")[0] for p in (plain, merged))
    assert not torch.equal(first, second)


def on_two_processes(program: list[str], config: Path, out: Path) -> str:
    """Train on two processes; what they said."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *program,
        "train",
        "transformer",
        str(config),
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_training_on_keeps_float16_on_the_disk(cache, tmp_path):
    config = config_file(tmp_path, settings(cache, steps=1, build=None, checkpoint="micro"))
    assert main(["train", "transformer", str(config), "--out", str(tmp_path / "run")]) == 0
    for part in ("transformer/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model"):
        file = load_file(tmp_path / f"run/checkpoint/{part}.safetensors")
        assert {value.dtype for value in file.values()} == {torch.float16}, part


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(cache, tmp_path):
    said = on_two_processes(["-m", "omnialpha"], config_file(tmp_path, settings(cache, steps=3)), tmp_path / "run")
    assert "on 2 processes" in said and [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_a_model_spread_over_processes_trains_as_a_whole_one(cache, tmp_path, lora):
    """FSDP: the same losses, the same file, and the same again after a stop."""
    start = {"build": TINY} if lora is None else {"build": None, "checkpoint": "micro", "lora": lora}
    config = config_file(tmp_path, settings(cache, steps=4, train_text_encoder=False, **start))
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    on_two_processes(["-m", "omnialpha"], config, whole)
    program = [str(ROOT / "tests/sharded.py")]
    on_two_processes(program, config, spread)
    losses = [[line["loss"] for line in lines(run)] for run in (whole, spread)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    file = "checkpoint/transformer/diffusion_pytorch_model.safetensors" if lora is None else "lora.safetensors"
    one, other = load_file(whole / file), load_file(spread / file)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value.float(), other[name].float(), atol=2e-3), name
    if lora is None:
        assert OmniAlphaPipeline.from_pretrained(spread / "checkpoint")
    shutil.rmtree(max((spread / "state").iterdir()))  # as if it had been stopped at step 2
    on_two_processes(program, config, spread)
    assert [line["loss"] for line in lines(spread)] == losses[1]


@pytest.mark.parametrize(("change", "words"), [
    ({"weigths": {}}, "Did you mean 'weights'"), ({"steps": 0}, "1 or more"), ({"steps": "many"}, "expected int"),
    ({"weights": {"mating_auto": 1}}, "matting_auto"), ({"rope": "3d"}, "bil or 2d"),
    ({"checkpoint": "micro"}, "either checkpoint or build"), ({"lora": {"rank": 4}}, "not a new model"),
    ({"times": {"default": {"shape": "often"}}}, "uniform, late or logit_normal"),
])  # fmt: skip
def test_bad_settings_teach(cache, tmp_path, change, words):
    with pytest.raises(OmniAlphaError, match=words):
        read_config(TransformerConfig, config_file(tmp_path, settings(cache) | change))


def test_bad_caches_are_refused_before_any_step(cache, dataset, tmp_path):
    config = read_config(TransformerConfig, config_file(tmp_path, settings(tmp_path / "nothing")))
    with pytest.raises(OmniAlphaError, match="is no cache of latents"):
        CacheSource(config)
    torn = tmp_path / "torn"
    shutil.copytree(cache, torn)
    shard = next(torn.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(OmniAlphaError, match=r"cannot be read.*train cache"):
        CacheSource(TransformerConfig({"matting_auto": 1}, 1, cache=str(torn), checkpoint="micro"))
    note = json.loads((torn / "cache.json").read_text())
    (torn / "cache.json").write_text(json.dumps(note | {"vae": "another"}))
    other = CacheConfig((DataPart(str(dataset)),), MICRO_VAE, pixel_budget=64 * 64, size_multiple=16)
    with pytest.raises(OmniAlphaError, match="holds a cache of latents with vae"):
        next(write_cache(other, torn))


def test_divergence_stops_with_the_last_state_intact(cache, tmp_path):
    config = read_config(TransformerConfig, config_file(tmp_path, settings(cache, lr=1e30, steps=8)))
    with pytest.raises(OmniAlphaError, match="Training has diverged"):
        train_transformer(config, tmp_path / "run", say=lambda _: None)
