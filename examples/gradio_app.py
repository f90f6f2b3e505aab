"""A page for a bundle, as for a Hugging Face Space: `pip install gradio 'atrous[cpu,hub]'`, `python gradio_app.py`.

BUNDLE is a folder, or hf:ORG/NAME, which is fetched first.
"""

import os
from pathlib import Path

import gradio
import numpy as np

from atrous import runtime
from atrous.runtime.hub.transfer import HubName, fetch_bundle

name = os.environ.get("BUNDLE", "bundle")
if name.startswith("hf:") and not Path("bundle").exists():
    fetch_bundle(HubName.parse(name), Path("bundle"))
segmenter = runtime.load("bundle" if name.startswith("hf:") else name)
classes = segmenter.bundle.manifest.classes


def segment(image: np.ndarray) -> tuple[np.ndarray, list[tuple[np.ndarray, str]]]:
    """The image (H, W, 3) uint8 RGB, and a mask with a name for each class in it."""
    labels = segmenter(np.ascontiguousarray(image))
    present = np.unique(labels)
    names = [classes[label] if label < len(classes) else str(label) for label in present]
    return image, [(labels == label, name) for label, name in zip(present, names, strict=True)]


page = gradio.Interface(segment, gradio.Image(type="numpy"), gradio.AnnotatedImage(), title="Segmentation by atrous")

if __name__ == "__main__":
    page.launch()
