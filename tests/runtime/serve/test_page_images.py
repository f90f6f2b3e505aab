from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.errors import RequestError
from atrous.runtime.pictures import encode_png
from atrous.runtime.serve.page_images import PageImage, PageImages
from atrous.runtime.serve.page_routes import make_policy, read_settings

from ..bundles import make_image
from .local import make_local
from .test_app import call


def make_one(local: Any, seed: int = 0) -> PageImage:
    segmenter, image = local.server.models.first.segmenter, make_image(25, 34, seed)
    return PageImage(segmenter, image, segmenter.run_network(segmenter.prepare(image)))


def test_the_least_recently_used_image_is_dropped(tmp_path: Path) -> None:
    with make_local(tmp_path) as local:
        images = PageImages(3)
        names = [images.add(make_one(local)) for _ in range(3)]
        images.find(names[0])
        images.add(make_one(local))
        assert images.find(names[0])
        with pytest.raises(RequestError) as caught:
            images.find(names[1])
        assert caught.value.status == 404


def test_only_recent_images_keep_the_arrays_of_the_crf(tmp_path: Path) -> None:
    with make_local(tmp_path) as local:
        images, segmenter = PageImages(8), local.server.models.first.segmenter
        kept = [make_one(local, seed) for seed in range(4)]
        names = [images.add(one) for one in kept]
        for name in names:
            images.find(name).label(segmenter, "exact", None)
        assert [len(one.refiners) for one in kept] == [0, 0, 1, 1]


def test_moves_and_drops_from_many_threads(tmp_path: Path) -> None:
    """Each call gives the labels of a direct call, or says that the image is gone."""
    with make_local(tmp_path) as local:
        segmenter, images = local.server.models.first.segmenter, PageImages(2)
        expected = {seed: segmenter(make_image(25, 34, seed)) for seed in range(3)}
        names = {seed: images.add(make_one(local, seed)) for seed in range(3)}
        faults: list[BaseException] = []

        def work(seed: int) -> None:
            choices = random.Random(seed)
            try:
                for _ in range(40):
                    which = choices.randrange(3)
                    try:
                        image = images.find(names[which])
                    except RequestError:
                        names[which] = images.add(make_one(local, which))
                        continue
                    if choices.random() < 0.1:
                        images.remove(names[which])
                    labels = image.label(segmenter, choices.choice(["exact", "preview", "exact"]), None)
                    if labels.shape == (25, 34):
                        np.testing.assert_array_equal(labels, expected[which])
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"parameters": 5, "kind": "fast"}', b'{"parameters": {}}'])
def test_what_is_no_move(body: bytes) -> None:
    with pytest.raises(RequestError, match="a move is"):
        read_settings(body)


def test_routes(tmp_path: Path) -> None:
    with make_local(tmp_path, max_pixels=5000) as local:
        opened = call(local, "POST", "/page/images?model=colors", content=encode_png(make_image(25, 34)))
        assert opened.status_code == 200, opened.text
        name = json.loads(opened.headers["x-atrous"])["image"]
        path = f"/page/images/colors/{name}"
        for kind, size in (("preview", 13 * 17), ("fast", 25 * 34), ("exact", 25 * 34)):
            moved = call(local, "POST", path, json={"parameters": {"iterations": 2}, "kind": kind})
            assert (moved.status_code, len(moved.content)) == (200, size)
        for wrong in ({"parameters": {}, "kind": "no"}, {"parameters": {"iterations": 1e9}, "kind": "fast"}):
            assert call(local, "POST", path, json=wrong).status_code == 400
        assert call(local, "POST", "/page/images", content=encode_png(make_image(80, 80))).status_code == 400
        assert call(local, "DELETE", path).status_code == 204
        assert call(local, "POST", path, json={"parameters": {}, "kind": "fast"}).status_code == 404
        page = call(local, "GET", "/")
        assert "script-src 'sha256-" in page.headers["content-security-policy"]
        assert "http" not in page.text.replace("http-equiv", "")


def test_the_policy_needs_one_script_and_one_style() -> None:
    with pytest.raises(ValueError, match="too many values"):
        make_policy("<style></style><script></script><script></script>")
