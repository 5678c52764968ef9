"""VAE: both key layouts, opaque initialisation, one layer at a time, previews."""

from inspect import signature

import comfy.sd
import torch
from comfy.ldm.wan.vae import WanVAE
from inside import fails, golden, job, micro, part, picture, run, worst
from safetensors.torch import load_file

import nodes

LATENT, PIXEL = 2e-5, 1e-5  # tolerances; a pixel in [0, 1] is half of one in [-1, 1]


def weights():
    return {k: t.float() for k, t in load_file(golden("vae/diffusion_pytorch_model.safetensors")).items()}


def layouts():
    """The fixture's VAE by every way to load it."""
    vae, rename = part("nodes.adapters.layer_vae"), part("omnialpha.checkpoint.vae_keys").to_wan
    yield "diffusers keys", vae.build_vae(weights(), "fixture")
    yield "wan keys", vae.build_vae(rename(weights()), "fixture")
    yield "core VAELoader", comfy.sd.VAE(sd=rename(weights()))


def check_latents_and_layers_match_the_reference():
    fixture, codec = load_file(golden("vae/fixtures.safetensors")), part("nodes.adapters.layer_vae")
    layer = fixture["a.image_u8"].movedim(-1, 0).float() / 255
    wanted = fixture["a.latent_mean"].reshape(1, 16, 1, 8, 8)
    decoded = (fixture["a.decoded"][0] + 1) / 2
    measured = {}
    for name, vae in layouts():
        (latent,) = codec.encode(vae, [layer])
        (found,) = codec.decode(vae, wanted)
        measured[name] = [worst(latent, wanted), worst(found, decoded.reshape(4, 64, 64).clamp(0, 1))]
        assert measured[name][0] < LATENT and measured[name][1] < PIXEL, measured
    return measured


def rgb_weights():
    """The fixture without its alpha channel."""
    rgb = weights()
    rgb["encoder.conv_in.weight"] = rgb["encoder.conv_in.weight"][:, :3]
    for name in ("weight", "bias"):
        rgb[f"decoder.conv_out.{name}"] = rgb[f"decoder.conv_out.{name}"][:3]
    return rgb


def check_opaque_initialisation_matches_the_reference():
    fixture, codec = load_file(golden("vae/fixtures.safetensors")), part("nodes.adapters.layer_vae")
    fails(lambda: codec.build_vae(rgb_weights(), "some.safetensors"), "some.safetensors", "RGB VAE", "opaque_init")
    vae = codec.build_vae(rgb_weights(), "some.safetensors", opaque_init=True)
    (latent,) = codec.encode(vae, [fixture["a.image_u8"].movedim(-1, 0).float() / 255])
    (layer,) = codec.decode(vae, fixture["opaque.latent_mean"])
    wanted = ((fixture["opaque.decoded"][0] + 1) / 2).clamp(0, 1)
    errors = {"latent": worst(latent, fixture["opaque.latent_mean"]), "layer": worst(layer, wanted)}
    assert errors["latent"] < LATENT and errors["layer"] < PIXEL, errors
    assert bool((layer[3] == 1).all())
    (layer,) = codec.decode(vae, torch.randn(1, 16, 1, 8, 8))
    assert bool((layer[3] == 1).all()), "for any latent"
    return errors


def check_layers_do_not_mix():
    _, _, vae = micro()
    codec = part("nodes.adapters.layer_vae")
    images = torch.cat([picture(1, channels=4), picture(2, channels=4)])
    (latent,) = run("OmniAlphaEncodeLayers", vae, images)
    assert latent["samples"].shape == (1, 16, 2, 8, 8)
    (alone,) = run("OmniAlphaEncodeLayers", vae, images[1:])
    assert torch.equal(latent["samples"][:, :, 1:], alone["samples"])
    both, mask = run("OmniAlphaDecodeLayers", vae, latent)
    single, _ = run("OmniAlphaDecodeLayers", vae, alone)
    assert both.shape == (2, 64, 64, 4) and torch.equal(both[1:], single)
    assert worst(mask, 1 - both[..., 3]) == 0
    assert len(codec.decode(vae, torch.zeros(3, 16, 8, 8))) == 3, "a 4D latent is a batch of layers"


def check_the_cores_own_nodes_take_layers_for_a_video():
    """What our pages say of ComfyUI's VAE Encode, VAE Decode and Load VAE, and why there are nodes of our own."""
    _, _, vae = micro()
    images = torch.cat([picture(1, channels=4), picture(2, channels=4)])
    (kept,) = nodes.VAEEncode().encode(vae, images)
    (latent,) = run("OmniAlphaEncodeLayers", vae, images)
    assert kept["samples"].shape[2] == 1 and worst(kept["samples"], latent["samples"][:, :, :1]) < LATENT
    (frames,) = nodes.VAEDecode().decode(vae, latent)
    assert len(frames) == 5, "frames of a video, not two layers"
    try:
        reads = comfy.sd.VAE(sd=weights()).output_channels == 4
    except Exception:  # which one depends on the release
        reads = False
    assert not reads, "ComfyUI reads diffusers' names by now: say so in the pages"


def check_tiles_agree_with_one_piece():
    _, _, vae = micro()
    image = picture(5, 192, 160, 4)
    (whole,) = run("OmniAlphaEncodeLayers", vae, image)
    (tiled,) = run("OmniAlphaEncodeLayers", vae, image, tile_size=128)
    assert tiled["samples"].shape == whole["samples"].shape
    layers, _ = run("OmniAlphaDecodeLayers", vae, whole)
    in_tiles, _ = run("OmniAlphaDecodeLayers", vae, whole, tile_size=128)
    assert in_tiles.shape == layers.shape and float((in_tiles - layers).abs().mean()) < 0.05
    return {"mean difference": float((in_tiles - layers).abs().mean())}


def check_values_survive_truncation():
    """SaveImage and many others multiply by 255 and cut: every k/255, or what sums of floats made of it, comes out as
    k. All others keep what they have; among them every step of 16 bits."""
    images = part("nodes.adapters.images")
    steps = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16) / 255
    near = (steps + 0.9 * images.SAME * (2 * torch.rand(4, 16, 16) - 1) / 255).clamp(0, 1)
    cut = (255.0 * images.to_image(images.through_bytes([near])).numpy()).clip(0, 255).astype("uint8")
    assert (cut[0].reshape(256, 4) == torch.arange(256)[:, None].numpy()).all()
    deep = torch.arange(65536, dtype=torch.float32).reshape(1, 256, 256).expand(4, -1, -1) / 65535
    (found,) = images.through_bytes([deep])
    assert ((found * 65535).round() == (deep * 65535).round()).all() and worst(found, deep) < 1e-7
    between = torch.rand(4, 32, 32)
    between = (between * 255).floor().add(0.01 + 0.98 * torch.rand(4, 32, 32)) / 255
    assert torch.equal(images.through_bytes([between])[0], between)


def check_bad_vaes_and_latents_are_named():
    codec = part("nodes.adapters.layer_vae")
    _, _, vae = micro()
    fails(lambda: codec.build_vae({"a": torch.zeros(1)}, "odd.safetensors"), "odd.safetensors")
    holed = weights()
    holed.pop("decoder.conv_out.bias")
    fails(lambda: codec.build_vae(holed, "holed.safetensors"), "holed.safetensors", "1 tensors are missing")
    rgb = comfy.sd.VAE(sd=part("omnialpha.checkpoint.vae_keys").to_wan(rgb_weights()))
    fails(lambda: codec.encode(rgb, [torch.zeros(4, 16, 16)]), "3 colour", "OmniAlpha Load VAE")
    fails(lambda: codec.encode(vae, [torch.zeros(4, 20, 16)]), "16x20", "multiples of 16")
    fails(lambda: codec.decode(vae, torch.zeros(1, 4, 8, 8)), "[1, 4, 1, 8, 8]")
    fails(lambda: codec.decode(vae, torch.full((1, 16, 1, 8, 8), float("nan"))), "NaN")


def check_every_public_key_has_its_place():
    """The full RGBA VAE against diffusers' names and shapes."""
    sides = {"image_channels": 4, "conv_out_channels": 4}  # older ones have a single number for both
    sides = {name: count for name, count in sides.items() if name in signature(WanVAE).parameters}
    with torch.device("meta"):
        vae = WanVAE(
            dim=96,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            **sides,
        )
    wanted = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    published = {name: torch.empty(shape, device="meta") for name, shape in job["full_vae"].items()}
    renamed = part("omnialpha.checkpoint.vae_keys").to_wan(published)
    assert {name: tuple(tensor.shape) for name, tensor in renamed.items()} == wanted
    return {"tensors": len(wanted)}


def check_previews_are_png_with_alpha():
    import io

    import comfy.utils

    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: seen.append((value, total, preview)))
    try:
        model, clip, vae = micro()
        run(
            "OmniAlphaTask",
            model,
            clip,
            vae,
            "decomposition_auto",
            "",
            "",
            1,
            3,
            1.0,
            "euler",
            "scale",
            image=picture(4),
        )
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    previews = [preview for _, _, preview in seen if preview is not None]
    assert len(previews) == 3
    for kind, image, size in previews:
        assert (kind, image.mode) == ("PNG", "RGBA") and image.width == 2 * image.height and size > 0
        image.save(io.BytesIO(), format=kind, quality=95, compress_level=1)  # what the server does with it


def check_previews_follow_the_artists_setting():
    from comfy.cli_args import LatentPreviewMethod, args

    model, _, vae = micro()
    before, args.preview_method = args.preview_method, LatentPreviewMethod.NoPreviews
    try:
        assert part("nodes.adapters.preview").previewer(model, vae) is None
    finally:
        args.preview_method = before


def check_previews_resemble_the_layers():
    _, _, vae = micro()
    preview, codec = part("nodes.adapters.preview"), part("nodes.adapters.layer_vae")
    layer = picture(9, 128, 128, 4)[0].movedim(-1, 0)
    latents = torch.cat(codec.encode(vae, [layer]), dim=2)[0]
    found = preview.contact_strip(latents, preview.fit(vae))
    error = float((found - torch.nn.functional.avg_pool2d(layer, 8)).abs().mean())
    plain = float((layer.mean((1, 2), keepdim=True) - torch.nn.functional.avg_pool2d(layer, 8)).abs().mean())
    assert found.shape == (4, 16, 16) and error < 0.75 * plain, (error, plain)
    return {"mean error": error, "of one colour": plain}


def check_vae_files_of_both_folders():
    """models/vae and models/omnialpha, and a file that is gone by the time the graph runs."""
    import shutil
    from pathlib import Path

    import folder_paths

    folders, models = part("nodes.adapters.model_folders"), Path(folder_paths.models_dir)
    source = golden("vae/diffusion_pytorch_model.safetensors")
    for name in ("vae/mine.safetensors", "omnialpha/rgba_vae/model.safetensors", "omnialpha/lora/other.safetensors"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, models / name)
    assert folders.vae_names() == ["mine.safetensors", "omnialpha/rgba_vae/model.safetensors"]
    for name in folders.vae_names():
        (vae,) = run("OmniAlphaLoadVAE", name, False)
        assert vae.output_channels == 4
    (models / "vae/mine.safetensors").write_bytes(b"\x00" * 100)
    fails(lambda: run("OmniAlphaLoadVAE", "mine.safetensors", False), "mine.safetensors", "cut off or damaged")
    shutil.rmtree(models / "omnialpha")
    (models / "vae/mine.safetensors").unlink()
    fails(lambda: run("OmniAlphaLoadVAE", "omnialpha/rgba_vae/model.safetensors", False), "any more")
