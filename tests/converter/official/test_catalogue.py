"""The catalogue: its content, and invalid catalogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atrous.bundle.crf_parameters import CrfParameters
from atrous.bundle.palettes import VOC_CLASSES, VOC_COLORS
from atrous.converter.official.catalogue import CATALOGUE_FILE, Catalogue, read_catalogue
from atrous.errors import FetchError

REQUIRED = {
    *("deeplab-largefov", "deeplab-coco-largefov", "deeplab-msc-largefov", "deeplab-msc-coco-largefov", "deeplab"),
    *("deeplab-msc", "deeplab-v2-vgg16", "deeplab-v2-resnet101", "vgg16-20m", "vgg16-128"),
}
#: (weight, xy, rgb) of the bilateral term and (weight, xy) of the other, from the authors' settings
CRF = {
    "deeplab": ((5, 50, 10), (3, 3)),
    "deeplab-msc": ((3, 95, 3), (3, 3)),
    "deeplab-largefov": ((4, 121, 5), (3, 3)),
    "deeplab-coco-largefov": ((5, 69, 5), (3, 3)),
    "deeplab-v2-vgg16": ((4, 49, 5), (3, 3)),
    "deeplab-v2-resnet101": ((4, 67, 3), (3, 1)),
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue()


def test_models(catalogue: Catalogue) -> None:
    assert {model.name for model in catalogue.models} >= REQUIRED
    assert not any(model.verified for model in catalogue.models), "no address has been tried"
    assert not any(model.weights.sha256 for model in catalogue.models), "no checksum was ever published"


def test_addresses_seen_in_public_scripts_are_marked(catalogue: Catalogue) -> None:
    seen = {a.url for model in catalogue.models for a in model.weights.addresses if a.basis == "seen"}
    assert "http://www.cs.jhu.edu/~alanlab/ccvl/DeepLab-LargeFOV/train2_iter_8000.caffemodel" in seen
    assert "http://liangchiehchen.com/projects/released/deeplab_aspp_resnet101/prototxt_and_model.zip" in seen
    assert not any(url.startswith("https:") for url in seen)


def test_the_last_address_is_the_archive_of_another_one(catalogue: Catalogue) -> None:
    for model in catalogue.models:
        *others, last = (address.url for address in model.weights.addresses)
        assert last.removeprefix("https://web.archive.org/web/2017id_/") in others


@pytest.mark.parametrize("name", CRF)
def test_crf_parameters_are_the_authors(catalogue: Catalogue, name: str) -> None:
    crf = catalogue.find(name).crf
    assert crf is not None
    (bilateral,), (gaussian,) = crf["bilateral"], crf["gaussian"]
    assert (bilateral["weight"], bilateral["sxy"], bilateral["srgb"]) == CRF[name][0]
    assert (gaussian["weight"], gaussian["sxy"]) == CRF[name][1]
    assert (crf["mode"], crf["iterations"]) == ("deeplab", 10)


def test_every_crf_is_valid_in_a_bundle_and_has_a_source(catalogue: Catalogue) -> None:
    for model in catalogue.models:
        if model.crf is not None:
            CrfParameters.from_dict(model.crf)
            assert model.crf_source


def test_classes_and_colors_are_vocs(catalogue: Catalogue) -> None:
    voc = catalogue.find_classes(catalogue.find("deeplab-largefov"))
    assert voc.classes == tuple(VOC_CLASSES)
    assert voc.palette == tuple(tuple(color) for color in VOC_COLORS)


def test_initializations_have_no_classes_and_no_crf(catalogue: Catalogue) -> None:
    for model in catalogue.models:
        assert (model.role == "initialization") == (model.labels == 0)
        if model.role == "initialization":
            assert (model.classes, model.crf) == (None, None)


@pytest.mark.parametrize(("name", "near"), [("deeplab-largefow", "deeplab-largefov"), ("DEEPLABV2", "deeplab")])
def test_similar_names_are_listed_for_a_wrong_one(catalogue: Catalogue, name: str, near: str) -> None:
    with pytest.raises(FetchError, match=f"did you mean .*{near}"):
        catalogue.find(name)


def test_a_name_is_found_in_any_case(catalogue: Catalogue) -> None:
    assert catalogue.find("DeepLab-LargeFOV").name == "deeplab-largefov"
    with pytest.raises(FetchError, match="atrous fetch lists"):
        catalogue.find("zzz")


def _spoil(content: dict[str, Any], how: str) -> None:
    model = content["models"][0]
    match how:
        case "version":
            content["schema_version"] = 2
        case "twice":
            content["models"].append(model)
        case "architecture":
            model["architecture"] = "vgg17"
        case "labels":
            model["labels"] = 20
        case "class set":
            model["classes"] = "coco"
        case "file address":
            model["weights"]["addresses"][0]["url"] = "file:///etc/passwd"
        case "address with a line break":
            model["weights"]["addresses"][0]["url"] += "\nx"
        case "address with an invisible character":
            model["weights"]["addresses"][0]["url"] += "\u202e"
        case "no address":
            model["weights"]["addresses"] = []
        case "path as file":
            model["weights"]["file"] = "../w.caffemodel"
        case "path as member":
            model["weights"]["member"] = "a/b"
        case "path as name":
            model["name"] = "../deeplab"
        case "hidden name":
            model["name"] = ".deeplab"
        case "checksum":
            model["weights"]["sha256"] = "abc"
        case "unknown field":
            model["color\x1b[31m"] = "red"


@pytest.mark.parametrize(
    "how",
    [
        *("version", "twice", "architecture", "labels", "class set", "file address", "address with a line break"),
        *(
            "address with an invisible character",
            "no address",
            "path as file",
            "path as member",
            "path as name",
            "hidden name",
            "checksum",
            "unknown field",
        ),
    ],
)
def test_an_invalid_catalogue(tmp_path: Path, how: str) -> None:
    content = json.loads(CATALOGUE_FILE.read_text())
    path = tmp_path / "models.json"
    path.write_text(json.dumps(content))
    read_catalogue(path)
    _spoil(content, how)
    path.write_text(json.dumps(content))
    with pytest.raises(FetchError, match=r"models\.json: .*; models\.json in atrous shows the form") as caught:
        read_catalogue(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "[", "\x00", "1", "[]"])
def test_a_file_that_is_not_a_catalogue(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mirrors.json"
    with pytest.raises(FetchError, match="cannot be read"):
        read_catalogue(path)
    path.write_text(text)
    with pytest.raises(FetchError, match=r"mirrors\.json"):
        read_catalogue(path)
