"""Window, Keep Pixels and the task node's two widgets: what fits together, what does not, and interrupts."""

import comfy.model_management as management
import comfy.utils
import torch
from inside import fails, micro, part, picture, run, worst


def scene(height: int = 240, width: int = 320) -> tuple[torch.Tensor, torch.Tensor]:
    """IMAGE [1, H, W, 3] on steps of 8 bits with a small disc, and its mask [1, H, W]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc = ((rows - 0.6 * height).square() + (columns - 0.3 * width).square()).sqrt() < 18
    image = 0.5 + 0.4 * (picture(3, height, width) - 0.5)
    image[:, disc] = torch.tensor([0.9, 0.2, 0.1])
    return (image * 255).round() / 255, disc[None].float()


def asked(task: str, **inputs) -> tuple:
    """What the task node gives, in two steps."""
    return run("OmniAlphaTask", *micro(), task, "", "", 1, 2, 1.0, "euler", "scale", **inputs)


def check_a_window_cuts_picture_and_guide_alike():
    _, _, vae = micro()
    image, mask = scene()
    cut, guide, window = run("OmniAlphaWindow", vae, "matting_mask", image, mask)
    assert cut.shape[1:3] == guide.shape[1:] and cut.shape[1] * cut.shape[2] < 0.7 * image.shape[1] * image.shape[2]
    assert guide.sum() == mask.sum() and window.shape == mask.shape and window.sum() == guide.numel()
    inside = window[0] > 0.5
    assert torch.equal(cut[0, ..., :3].reshape(-1, 3), image[0][inside]) and bool((cut[..., 3] == 1).all())
    again, *_ = run("OmniAlphaWindow", vae, "matting_mask", image, mask, window=0.8 * window)
    assert torch.equal(again, cut), "what was found counts like what is drawn"
    drawn = torch.zeros_like(mask)
    drawn[:, 5:9, 100:103], drawn[:, 30, 7] = 1, 1
    cut, guide, window = run("OmniAlphaWindow", vae, "removal_auto", image, window=drawn)
    assert cut.shape == (1, 26, 96, 4) and not guide.any() and guide.shape == (1, 26, 96) and window.sum() == 26 * 96


def check_a_first_pass_says_where():
    """As the model made it or brought back to the picture: the same window."""
    _, _, vae = micro()
    image, mask = scene()
    alpha = mask[0] * 0.9
    whole = torch.cat([image, alpha[None, ..., None]], dim=-1)
    fitted = (
        part("omnialpha.layers.sequence")
        .LayerSequence([whole[0].movedim(-1, 0)], 1)
        .fitted(part("nodes.adapters.settings").settings_of(vae.patcher).pixel_budget, 16)
    )
    small = part("nodes.adapters.images").to_image(fitted.inputs)
    cut, _, window = run("OmniAlphaWindow", vae, "matting_auto", image, layers=small)
    assert (window * mask).sum() == mask.sum() and 0 < window.mean() < 0.5 and cut[0, ..., 0].numel() == window.sum()
    assert torch.equal(window, run("OmniAlphaWindow", vae, "matting_auto", image, layers=whole)[2])
    nothing = torch.cat([image, torch.zeros_like(image[..., :1])], dim=-1)
    assert bool(run("OmniAlphaWindow", vae, "matting_auto", image, layers=nothing)[2].all()), "the whole picture"


def check_windows_that_cannot_be():
    _, _, vae = micro()
    image, mask = scene()
    empty = torch.zeros_like(mask)
    fails(lambda: run("OmniAlphaWindow", vae, "matting_auto", image), "no guide", "first pass", "'window'")
    fails(lambda: run("OmniAlphaWindow", vae, "matting_mask", image), "needs a guide")
    fails(lambda: run("OmniAlphaWindow", vae, "matting_mask", image, mask[:, :9]), "320x9", "320x240")
    fails(lambda: run("OmniAlphaWindow", vae, "matting_mask", image, mask, window=empty), "window is empty", "320x240")
    fails(lambda: run("OmniAlphaWindow", vae, "matting_auto", image, window=mask[:, 1:]), "320x239", "320x240")
    fails(lambda: run("OmniAlphaWindow", vae, "matting_auto", image, layers=image[:, :7]), "320x7", "320x240")
    fails(lambda: run("OmniAlphaWindow", vae, "decomposition_auto", image, layers=image), "gives 2 layers", "has 1")
    fails(lambda: run("OmniAlphaWindow", vae, "matting_mask", image.expand(2, -1, -1, -1), mask), "batch of 2")


def check_pixels_that_cannot_be_kept():
    """Layers, sequence and window that do not belong together."""
    _, _, vae = micro()
    image, mask = scene()
    cut, guide, window = run("OmniAlphaWindow", vae, "removal_mask", image, mask)
    marked = guide[..., None].expand(-1, -1, -1, 3)
    (sequence,) = run("OmniAlphaSequence", 1, 0, 0, "scale", {"layer0": cut, "layer1": marked})
    (alone,) = run("OmniAlphaSequence", 1, 0, 0, "scale", {"layer0": cut})

    def keep(task="removal_mask", layers=cut, sequence=sequence, window=window, image=image, **more):
        return run("OmniAlphaKeepPixels", vae, task, image, layers, sequence, window, **more)

    layers, mask_out, flat = keep()
    assert layers.shape == flat.shape == (1, 240, 320, 4) and mask_out.shape == mask.shape
    assert torch.equal(layers[..., :3], image), "a run that changes nothing"
    size, part_ = "320x240", f"{cut.shape[2]}x{cut.shape[1]}"
    fails(lambda: keep(sequence=alone), "sees 2 layers (composite, mask)", "holds 1")
    fails(lambda: keep(window=None), part_, "the picture has 320x240", "Window")
    fails(lambda: keep(window=torch.zeros_like(window)), "window is empty")
    fails(lambda: keep(window=window[:, 1:]), "320x239", size)
    fails(lambda: keep(layers=image), size, f"the window {part_}", "restore_frame")
    fails(lambda: keep("decomposition_mask"), "gives 2 layers", "1 are connected")
    fails(lambda: keep(image=image[:, :200]), "320x240", "320x200")


def check_redraw_gives_the_models_layers():
    """And keep the picture's own values in the opaque core, at the picture's size."""
    image, mask = scene()
    kept, *_ = asked("matting_mask", image=image, guide=mask)
    drawn, *_ = asked("matting_mask", image=image, guide=mask, pixels="redraw")
    core = kept[0, ..., 3] == 1
    assert kept.shape == drawn.shape and core.sum() > 100
    assert torch.equal(kept[0][core][:, :3], image[0][core])
    assert worst(drawn[0][core][:, :3], image[0][core]) > 10 / 255


def check_sixteen_bits_pass():
    """A removal keeps every value of 16 bits that it does not change."""
    image, mask = scene()
    deep = (image + (torch.rand_like(image) - 0.5) / 255).clamp(0, 1)
    deep = (deep * 65535).round() / 65535
    kept, *_ = asked("removal_mask", image=deep, guide=mask)
    same = (kept[..., :3] == deep).all(dim=-1)
    assert same.float().mean() > 0.5 and len((kept[..., :3][same] * 65535).round().unique()) > 256


def check_the_finishing_can_be_interrupted():
    """After the last step; ComfyUI's own exception, which it reports as an interrupt."""
    image, mask = scene()
    told = []

    def interrupt(value, total, preview, **_):
        told.append((value, total))
        if total == 100:  # of a hundred: the finishing
            management.interrupt_current_processing(True)

    comfy.utils.set_progress_bar_global_hook(interrupt)
    try:
        asked("matting_mask", image=image, guide=mask)
        raise AssertionError("it went on to the end")
    except management.InterruptProcessingException:
        pass
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
    assert (2, 2) in told and told[-1][1] == 100 and told[-1][0] < 100, told
