"""Many jobs through ComfyUI servers: nothing lost, nothing twice. `python -m omnialpha batch`, see docs/headless.md."""
