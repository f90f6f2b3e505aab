"""Training of the miniature network on scenes drawn as it goes: plain PyTorch on the CPU, one seed, no data set.

A pool of scenes renews itself: each step draws a few new ones and trains on random crops, mirrored half the time, of
the whole pool. The loss is the cross entropy of the zoomed scores at full size, the learning rate falls polynomially,
as in DeepLab. One seed and one thread on one machine repeat the training number for number; another machine rounds
differently, and ends with another net that is as good.
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
        batch: crops a step.
        crop: (height, width) of a crop in pixels, both of the form 8k + 1.
        fresh_scenes: scenes drawn new each step.
        pool: how many of the latest scenes the crops come from.
        learning_rate: at the start; falls with (1 - step / iterations) ** power.
        power: see above.
        weight_decay: decoupled, as in AdamW.
        seed: of the initial weights and of everything random.
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
        (batch, 3, h, w) float32 as the net takes it, channels last in memory, and (batch, h, w) int64 labels.
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
