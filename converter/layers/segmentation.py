"""Layers that refine a segmentation: DenseCRF (DeepLab, CCNN), MultiStageMeanfield (CRF-RNN), DomainTransform.

They depend on data_dim or sort at run time, so they run in torch and have no ONNX form; for deployment, cut the net
before the layer and use the runtime's CRF instead.
DenseCRF (DeepLab): bottoms scores, data_dim, image; v1 and v2 read the scores as negative energies, up to a constant
per pixel. Each pos_xy_std with its pos_w is a smoothness term, each bi_xy_std with bi_rgb_std and bi_w an appearance
term; normalization follows the filter. Top: probabilities, or their logarithm (output_probability: false).
DenseCRF (CCNN, densecrf_param): bottoms scores, image; top: labels.
MultiStageMeanfield: blobs W_s, W_b, C, each (1, 1, M, M); see the torch module. Without weights its matrices are 0.
"""

from __future__ import annotations

from ..graph.net import Shape
from .base import ModuleSpec, Operator, count, register_layer


@register_layer("DenseCRF")
class DenseCRF(Operator):
    """Mean-field inference in a fully connected CRF."""

    bottom_range = (2, 3)

    def set_up(self) -> None:
        self.gives_labels = self.context.message.HasField("densecrf_param")
        self.require_planes()
        if self.gives_labels:
            self._set_up_labels()
        else:
            self._set_up_deeplab()

    def _set_up_deeplab(self) -> None:
        param = self.param = self.context.message.dense_crf_param
        scores, data_dim = self.bottoms[0].shape, self.bottoms[1].shape
        self.require_same_count(pos_xy_std=param.pos_xy_std, pos_w=param.pos_w)
        self.require_same_count(bi_xy_std=param.bi_xy_std, bi_rgb_std=param.bi_rgb_std, bi_w=param.bi_w)
        for field in ("pos_xy_std", "bi_xy_std", "bi_rgb_std"):
            self.require_positive(**{field: tuple(getattr(param, field))})
        if param.bi_w and len(self.bottoms) < 3:
            self.refuse("has bilateral terms but no image; give the image as third bottom")
        if data_dim != (scores[0], 1, 1, 2):
            self.refuse(
                f"needs the height and width of each item, {(scores[0], 1, 1, 2)}, as second bottom; "
                f'"{self.bottoms[1].name}" is {data_dim}'
            )
        if len(self.bottoms) == 3:
            self._check_image(self.bottoms[2].shape)

    def _set_up_labels(self) -> None:
        param = self.param = self.context.message.densecrf_param
        if len(self.bottoms) != 2:
            self.refuse("with densecrf_param needs two bottoms: scores and image")
        self.gaussian = (param.x_gauss, param.y_gauss, param.wt_gauss)
        deviations = {name: getattr(param, f"{name}_bilateral") for name in "xyrgb"}
        self.bilateral = (*deviations.values(), param.wt_bilateral)
        self.require_positive(x_gauss=param.x_gauss, y_gauss=param.y_gauss)
        self.require_positive(**{f"{name}_bilateral": value for name, value in deviations.items()})
        self._check_image(self.bottoms[1].shape)

    def _check_image(self, image: Shape) -> None:
        batch, _, height, width = self.bottoms[0].shape
        if image != (batch, 3, height, width):
            self.refuse(f"needs an image of the scores' size, {(batch, 3, height, width)}, has {image}")

    def top_shapes(self) -> tuple[Shape, ...]:
        batch, labels, height, width = self.bottoms[0].shape
        return ((batch, 1 if self.gives_labels else labels, height, width),)

    def module_spec(self) -> ModuleSpec:
        param = self.param
        if self.gives_labels:
            return ModuleSpec("LabelCRF", {"gaussian": self.gaussian, "bilateral": self.bilateral})
        arguments = {
            "iterations": param.max_iter,
            "gaussians": tuple(zip(param.pos_xy_std, param.pos_w, strict=True)),
            "bilaterals": tuple(zip(param.bi_xy_std, param.bi_rgb_std, param.bi_w, strict=True)),
            "log_output": not param.output_probability,
        }
        return ModuleSpec("DenseCRF", arguments)


@register_layer("MultiStageMeanfield")
class MultiStageMeanfield(Operator):
    """CRF-RNN's mean-field inference with learned label matrices."""

    bottom_range = (3, 3)

    def set_up(self) -> None:
        self.param = self.context.message.multi_stage_meanfield_param
        unary, initial, image = (blob.shape for blob in self.bottoms)
        if len(unary) != 4 or initial != unary or image != (unary[0], 3, *unary[2:]):
            self.refuse(f"needs two scores and an image of equal size, has {unary}, {initial} and {image}")
        if self.param.num_iterations < 2:
            self.refuse("num_iterations must be at least 2")
        for field in ("theta_alpha", "theta_beta", "theta_gamma"):
            self.require_positive(**{field: getattr(self.param, field)})
        self.labels = unary[1]

    def weight_shapes(self) -> tuple[Shape, ...]:
        return ((1, 1, self.labels, self.labels),) * 3

    def multiply_adds(self) -> int:
        return 3 * int(self.param.num_iterations) * self.labels * count(self.bottoms[0].shape)

    def module_spec(self) -> ModuleSpec:
        arguments = {
            "labels": self.labels,
            "iterations": self.param.num_iterations,
            "alpha": self.param.theta_alpha,
            "beta": self.param.theta_beta,
            "gamma": self.param.theta_gamma,
        }
        return ModuleSpec("MultiStageMeanfield", arguments, ("spatial_weights", "bilateral_weights", "compatibility"))


@register_layer("DomainTransform")
class DomainTransform(Operator):
    """DeepLab v2's edge-aware filter of the scores."""

    bottom_range = (3, 3)

    def set_up(self) -> None:
        self.param = self.context.message.domain_transform_param
        x, gradient, data_dim = (blob.shape for blob in self.bottoms)
        if len(x) != 4 or gradient != (x[0], 1, *x[2:]) or data_dim != (x[0], 1, 1, 2):
            self.refuse(
                "needs scores (N, C, H, W), their reference gradient (N, 1, H, W) and data_dim (N, 1, 1, 2), "
                f"has {x}, {gradient} and {data_dim}"
            )
        for field in ("spatial_sigma", "range_sigma", "num_iter"):
            self.require_positive(**{field: getattr(self.param, field)})
        if self.param.min_weight < 0:
            self.refuse(f"min_weight must not be negative, not {self.param.min_weight}")

    def module_spec(self) -> ModuleSpec:
        arguments = {
            "iterations": self.param.num_iter,
            "spatial_sigma": self.param.spatial_sigma,
            "range_sigma": self.param.range_sigma,
            "least_weight": self.param.min_weight,
        }
        return ModuleSpec("DomainTransform", arguments)
