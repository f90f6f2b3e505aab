"""The trainable layer: the CPU's marginals, exact gradients, and a net that learns through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from atrous.converter import read_net, to_torch  # noqa: E402
from atrous.converter.modules.lattice import PermutohedralLattice, bilateral_features  # noqa: E402
from atrous.runtime.crf import CrfInputError, CrfParameters, DenseCRF, _lattice, dense_crf  # noqa: E402
from atrous.runtime.crf.torch import DenseCRF as TorchCRF  # noqa: E402
from atrous.runtime.crf.torch import Lattice  # noqa: E402
from tools.scenes import CLASSES, draw_scene  # noqa: E402

from .conftest import make_problem  # noqa: E402


def make_parameters(mode: str, iterations: int = 5, **terms: Any) -> CrfParameters:
    gaussian, bilateral = [{"sxy": 3, "weight": 3}], [{"sxy": 30, "srgb": 12, "weight": 4}]
    known = {"mode": mode, "iterations": iterations, "gaussian": gaussian, "bilateral": bilateral, **terms}
    return CrfParameters.from_dict(known)


@pytest.mark.parametrize("mode", ["deeplab", "pydensecrf"])
@pytest.mark.parametrize(("height", "width", "labels"), [(19, 26, 5), (40, 33, 2), (1, 7, 3)])
def test_forward_is_the_core(mode: str, height: int, width: int, labels: int) -> None:
    image, probabilities = make_problem(height, width, labels)
    scores = np.log(probabilities)
    parameters = make_parameters(mode)
    expected = dense_crf(image, scores=scores, parameters=parameters)
    layer = TorchCRF(labels, parameters)
    found = layer(torch.from_numpy(scores)[None], [image])
    assert found.shape == (1, labels, height, width)
    np.testing.assert_allclose(found[0].detach().numpy(), expected, rtol=0, atol=2e-6)


def test_forward_with_a_matrix_is_the_core() -> None:
    image, probabilities = make_problem(15, 18, 4)
    matrix = np.random.default_rng(0).uniform(0, 2, (4, 4)).astype(np.float32)
    matrix += matrix.T
    crf = DenseCRF((15, 18), 4)
    crf.set_scores(np.log(probabilities))
    crf.add_bilateral(30, 12, image, 4 * matrix, normalization="after")
    layer = TorchCRF(4, make_parameters("deeplab", gaussian=[]))
    layer.compatibility.data = torch.from_numpy(matrix)
    found = layer(torch.from_numpy(np.log(probabilities))[None], torch.from_numpy(image)[None])
    np.testing.assert_allclose(found[0].detach().numpy(), crf.inference(5), rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", ["deeplab", "pydensecrf"])
def test_gradients(mode: str) -> None:
    images = np.stack([make_problem(3, 4, 3, seed)[0] for seed in (1, 2)])
    layer = TorchCRF(3, make_parameters(mode, iterations=2), clip=None).double()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.7, 1.3], dtype=torch.float64, requires_grad=True)
    compatibility = torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def run(scores: Any, weights: Any, compatibility: Any) -> Any:
        chosen = {"weights": weights, "compatibility": compatibility}
        return torch.func.functional_call(layer, chosen, (scores, images))

    assert torch.autograd.gradcheck(run, (scores, weights, compatibility))


def test_clipped_probabilities_have_no_gradient() -> None:
    image, _ = make_problem(4, 5, 2)
    scores = torch.zeros(1, 2, 4, 5)
    scores[:, 1] = -30
    scores.requires_grad_()
    TorchCRF(2, make_parameters("deeplab"))(scores, [image])[:, 1].sum().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("size", [(9, 13), (8, 8)])
def test_the_converter_builds_the_same_lattice(size: tuple[int, int]) -> None:
    """Two independent builds: the same vertices around each pixel, weights and neighbors, in the same layout."""
    image, _ = make_problem(*size, 2)
    order = _lattice.PixelOrder.tiled(*size)
    native = _lattice.Lattice.from_grid(order, list(size), [7.0] * 2, image, [9.0] * 3, 2, None, 1)
    ours = Lattice(native, torch.zeros(1))
    theirs = PermutohedralLattice(bilateral_features(torch.from_numpy(image).permute(2, 0, 1), 7.0, 9.0))
    count = native.vertices
    assert theirs.vertex_count == count
    assert theirs.vertices.shape == ours.vertices.shape
    assert theirs.neighbors.shape == ours.neighbors.shape == (6, count, 2)
    names = torch.full((count + 1,), -1)
    names[ours.vertices.flatten()] = theirs.vertices.flatten()
    touched = names[:count] >= 0  # the padding's vertices have no pixel
    names[count] = count
    assert torch.equal(names[ours.vertices], theirs.vertices)
    torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=0)
    neighbors = names[ours.neighbors[:, touched]]
    expected = theirs.neighbors[:, names[:count][touched]]
    known = neighbors >= 0
    assert known.float().mean() > 0.9
    assert torch.equal(neighbors[known], expected[known])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_computes_in_float32(dtype: torch.dtype) -> None:
    image, probabilities = make_problem(15, 18, 4)
    scores, layer = torch.from_numpy(np.log(probabilities))[None], TorchCRF(4, make_parameters("deeplab"))
    rounded = layer(scores.to(dtype).float(), [image])
    exact = layer(scores, [image])
    with torch.autocast("cpu", dtype):
        assert torch.equal(layer(scores, [image]), exact)
        assert torch.equal(layer(scores.to(dtype), [image]), rounded)
    assert torch.equal(layer(scores.to(dtype), [image]), rounded)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, at graph breaks
def test_compiled_net_with_a_crf() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.crf = nn.Conv2d(3, 2, 1), TorchCRF(2, make_parameters("deeplab", iterations=2))

        def forward(self, data: Any, images: Any) -> Any:
            return self.crf(self.last(data), images)

    net, image = Net(), make_problem(9, 11, 2)[0]
    data = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
    found = torch.compile(net, backend="eager")(data, [image])
    expected = net(data, [image])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found[:, 0].sum().backward()
    assert net.last.weight.grad is not None


@pytest.mark.parametrize(
    ("scores", "images", "message"),
    [
        (np.zeros((1, 3, 4, 5), np.float32), np.zeros((1, 4, 5, 3), np.uint8), r"\(N, 2, H, W\)"),
        (np.zeros((2, 4, 5), np.float32), np.zeros((1, 4, 5, 3), np.uint8), r"\(N, 2, H, W\)"),
        (np.zeros((1, 2, 4, 5), np.int64), np.zeros((1, 4, 5, 3), np.uint8), "floating point"),
        (np.zeros((0, 2, 4, 5), np.float32), np.zeros((0, 4, 5, 3), np.uint8), r"got torch.float32 \(0, 2, 4, 5\)"),
        (np.zeros((1, 2, 4, 5), np.float32), np.zeros((2, 4, 5, 3), np.uint8), "2 images"),
        (np.zeros((1, 2, 4, 5), np.float32), np.zeros((1, 5, 4, 3), np.uint8), "swapped"),
        (np.zeros((1, 2, 4, 5), np.float32), np.zeros((1, 4, 5, 3), np.int64), "uint8"),
    ],
)
def test_wrong_inputs(scores: Any, images: Any, message: str) -> None:
    with pytest.raises(CrfInputError, match=message):
        TorchCRF(2)(torch.from_numpy(scores), images)


def test_wrong_types() -> None:
    with pytest.raises(CrfInputError, match="tensor, got ndarray"):
        TorchCRF(2)(np.zeros((1, 2, 4, 5), np.float32), np.zeros((1, 4, 5, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(CrfInputError, match="CrfParameters, got dict"):
        TorchCRF(2, make_parameters("deeplab").to_dict())  # type: ignore[arg-type]


def test_a_net_learns_through_the_crf() -> None:
    """The miniature with a weakened last layer and an unsuitable CRF: both are trained, and the loss falls."""
    folder = Path(__file__).resolve().parents[3] / "scripts" / "miniature"
    module = to_torch(
        read_net(folder / "deeplab-miniature.prototxt", weights=folder / "deeplab-miniature.caffemodel")
    ).eval()
    scenes = [draw_scene(seed, 65, 81) for seed in (11, 12)]
    images = np.stack([scene.image for scene in scenes])
    truth = torch.from_numpy(np.stack([scene.labels for scene in scenes])).long()
    mean = torch.tensor([104.008, 116.669, 122.675])[:, None, None]
    data = torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float() - mean
    last = dict(module.named_modules())["fc8_scenes"]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.shape[0] == len(CLASSES))
        last.weight *= 0.3
    crf = TorchCRF(len(CLASSES), make_parameters("deeplab", iterations=3))
    groups = [{"params": last.parameters(), "lr": 1e-3}, {"params": crf.parameters(), "lr": 0.05}]
    optimizer = torch.optim.Adam(groups)
    losses = []
    for _ in range(6):
        output = module(data)
        scores = next(iter(output.values())) if isinstance(output, dict) else output
        marginals = crf(scores[:, :, :65, :81], images)
        loss = torch.nn.functional.nll_loss(marginals.clamp_min(1e-8).log(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
    assert crf.weights.grad is not None
    assert crf.weights.grad.abs().min() > 0
