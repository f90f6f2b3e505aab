"""Training of the miniature network on scenes drawn on the fly: plain PyTorch on the CPU, one seed, no data set.

Each step adds a few new scenes to a pool and trains on random crops of the whole pool, mirrored half the time. The
loss is the cross entropy of the upsampled scores at full size; the learning rate decays polynomially, as in DeepLab.
With one seed and one thread, training is bit-exact on one machine; another machine rounds differently and gives a
different net of equal quality.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..scenes import CLASSES, Scene, draw_scene
from .network import MiniatureNet, prepare_data, zoom_scores

TRAINING_SEEDS = 1_000_000
"""Training scenes have seeds from here upwards; validation, test and shipped scenes stay below."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one training; the defaults are those of the shipped weights.

    Attributes:
        iterations: optimizer steps.
        batch: crops per step.
        crop: (height, width) of a crop in pixels, both of the form 8k + 1.
        fresh_scenes: new scenes per step.
        pool: number of latest scenes that crops are taken from.
        learning_rate: initial learning rate; multiplied by (1 - step / iterations) ** power.
        power: exponent of the decay.
        weight_decay: decoupled, as in AdamW.
        seed: seed of the initial weights and of all random choices.
    """

    iterations: int = 2000
    batch: int = 8
    crop: tuple[int, int] = (193, 257)
    fresh_scenes: int = 4
    pool: int = 400
    learning_rate: float = 4e-3
    power: float = 0.9
    weight_decay: float = 0.02
    seed: int = 2015


def train_net(recipe: Recipe, report: Callable[[int, float], None] = lambda step, loss: None) -> MiniatureNet:
    """Train a fresh net.

    Args:
        recipe: the settings.
        report: called after each step with its number (from 1) and its loss.

    Returns:
        The net in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    net = MiniatureNet(len(CLASSES))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, recipe.iterations, recipe.power)
    pool: deque[Scene] = deque(maxlen=recipe.pool)
    for step in range(1, recipe.iterations + 1):
        first = TRAINING_SEEDS + (step - 1) * recipe.fresh_scenes
        pool.extend(draw_scene(seed) for seed in range(first, first + recipe.fresh_scenes))
        data, labels = cut_batch(rng, pool, recipe)
        loss = F.cross_entropy(zoom_scores(net(data)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        report(step, loss.item())
    return net.eval()


def cut_batch(rng: np.random.Generator, pool: deque[Scene], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Cut random crops, each from a random scene of the pool, mirrored left to right half the time.

    Returns:
        (batch, 3, h, w) float32 input of the net, channels last in memory, and (batch, h, w) int64 labels.
    """
    height, width = recipe.crop
    images = np.empty((recipe.batch, height, width, 3), np.uint8)
    labels: NDArray[np.int64] = np.empty((recipe.batch, height, width), np.int64)
    for item in range(recipe.batch):
        scene = pool[int(rng.integers(len(pool)))]
        top = int(rng.integers(scene.labels.shape[0] - height + 1))
        left = int(rng.integers(scene.labels.shape[1] - width + 1))
        columns = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
        images[item] = scene.image[top : top + height, left : left + width][:, columns]
        labels[item] = scene.labels[top : top + height, left : left + width][:, columns]
    data = prepare_data(images).contiguous(memory_format=torch.channels_last)
    return data, torch.from_numpy(labels)
