"""What ComfyUI does on a GPU and not on a CPU, put on where there is none. One of these is called before the pack is
imported; all of them need the modules of the ComfyUI at hand.
"""

import comfy.model_management
import comfy.model_patcher


def streaming():
    """Weights stream into VRAM, so layers have none before they are loaded. On a CPU the patcher is a plain one."""
    import comfy.memory_management

    comfy.memory_management.aimdo_enabled = True
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic


def streaming_patcher():
    """As `streaming`, with the patcher that a GPU gets; only the buffers that its driver would give are made up."""
    import comfy_aimdo.host_buffer

    class Buffer:
        size = 0

        def __init__(self, *_):
            pass

        def truncate(self, *_, **__):
            pass

    class OnCPU(comfy.model_patcher.ModelPatcherDynamic):
        def __new__(cls, *_, **__):
            return object.__new__(cls)

        def partially_unload(self, *_, **__):
            return self.restore_loaded_backups()

    streaming()
    comfy_aimdo.host_buffer.HostBuffer = Buffer
    comfy.model_patcher.CoreModelPatcher = OnCPU


def partly_loaded():
    """Hardly a weight stays in VRAM; the rest is fetched layer by layer, as after --lowvram and --novram."""
    load = comfy.model_management.LoadedModel.model_load

    def little(self, lowvram_model_memory=0, *rest, **more):
        return load(self, 0.1, *rest, **more)

    comfy.model_management.LoadedModel.model_load = little
