"""Label photos by a server: `python triton_client.py localhost:8000 MODEL labels photo.jpg ...`.

The server is NVIDIA's Triton on a repository of `atrous export triton`, or `atrous serve BUNDLE`: both answer the same
requests. This side needs no atrous: `pip install 'tritonclient[http]' pillow`.
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image


def main(server: str, model: str, out: str, *photos: str) -> None:
    """Write the labels of each photo into the folder `out`, as a PNG in the classes' colors."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [triton.InferRequestedOutput("labels_png")]
    with triton.InferenceServerClient(server) as client:
        for photo in map(Path, photos):
            image = np.array(Image.open(photo).convert("RGB"))  # H x W x 3 uint8
            given = triton.InferInput("image", [1, *image.shape], "UINT8")
            given.set_data_from_numpy(image[None])
            answer = client.infer(model, [given], outputs=wanted)
            (folder / f"{photo.stem}.png").write_bytes(answer.as_numpy("labels_png")[0, 0])


if __name__ == "__main__":
    main(*sys.argv[1:])
