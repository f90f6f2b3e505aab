"""The published colors, against values written down in the data sets' own documents."""

from __future__ import annotations

from itertools import combinations

from atrous.bundle import palettes


def test_voc() -> None:
    assert len(palettes.VOC_CLASSES) == len(palettes.VOC_COLORS) == 21
    by_name = dict(zip(palettes.VOC_CLASSES, palettes.VOC_COLORS, strict=True))
    assert by_name["background"] == (0, 0, 0)
    assert by_name["aeroplane"] == (128, 0, 0)
    assert by_name["cow"] == (64, 128, 0)
    assert by_name["person"] == (192, 128, 128)
    assert by_name["tvmonitor"] == (0, 64, 128)
    assert palettes.make_voc_colors()[255] == (224, 224, 192)  # the void
    assert len(set(palettes.make_voc_colors())) == 256
    assert palettes.make_voc_colors(0) == ()


def test_cityscapes_and_camvid() -> None:
    assert len(set(palettes.CITYSCAPES_COLORS)) == len(palettes.CITYSCAPES_CLASSES) == 19
    assert len(set(palettes.CAMVID_COLORS)) == len(palettes.CAMVID_CLASSES) == 11
    assert palettes.CITYSCAPES_COLORS[palettes.CITYSCAPES_CLASSES.index("sky")] == (70, 130, 180)


def test_distinct_colors() -> None:
    colors = palettes.make_distinct_colors(40)
    assert colors == palettes.make_distinct_colors(200)[:40]
    nearest = min(sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for p, q in combinations(colors, 2))
    assert nearest > 20**2


def test_class_sets() -> None:
    assert list(palettes.CLASS_SETS) == ["voc", "cityscapes", "camvid", "sun-rgbd", "ade20k", "coco-stuff"]
    for names, colors in palettes.CLASS_SETS.values():
        assert len(names) == len(colors) > 0
    assert palettes.CLASS_SETS["camvid"].names == palettes.CAMVID_CLASSES
