# ruff: noqa: F821
# For building firmware with the agent frozen in: include("…/manifest.py") in the board's own.
# boot.py is not frozen: copy firmware/boot.py to the flash, where MicroPython looks for it.
metadata(description="Over-the-air updates for nodes of the insigh.io platform", version="0.1.0")
package("ota", base_path="firmware")
