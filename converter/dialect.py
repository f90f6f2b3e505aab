"""Which Caffe a file is from, told by evidence.

Text names its fields, so for text the dialect is only reported. Binaries carry numbers, and the same number means
different things in different forks: there the dialect decides what is read (`caffemodel.py`).
"""

from __future__ import annotations

BVLC = "bvlc"

V1_ONLY = frozenset({"deeplab_v1", "deconvnet", "hed"})
"""Forks from before `layer { }`: what only they know cannot stand in one."""

FORK_TYPES: dict[str, tuple[str, ...]] = {
    "AdaptiveBiasChannel": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "AnnotatedData": ("ssd",),
    "Axpy": ("senet",),
    "BN": ("segnet", "pspnet", "deconvnet"),
    "BiasChannel": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "BinLabelData": ("fyu_dilation",),
    "BoxAnnotatorOHEM": ("rfcn",),
    "CTCGreedyDecoder": ("openvino",),
    "CenterLoss": ("caffe_face",),
    "ColorConv": ("colorization",),
    "ConvolutionDepthwise": ("mobilenet",),
    "DenseCRF": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "DenseImageData": ("segnet",),
    "DepthwiseConvolution": ("mobilenet",),
    "DetectNetTransformation": ("nvcaffe",),
    "DetectionEvaluate": ("ssd",),
    "DetectionOutput": ("ssd",),
    "DomainTransform": ("deeplab_v2", "pspnet"),
    "EvalDetection": ("yolo",),
    "ImageLabelData": ("fyu_dilation",),
    "ImageLabelmapData": ("hed",),
    "ImageSegData": ("deeplab_v1", "deeplab_v2", "pspnet", "deconvnet"),
    "Interp": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "L2Normalization": ("flownet",),
    "LSTMConv": ("convlstm",),
    "MatRead": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "MatWrite": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "MergeCrop": ("naibaf7",),
    "MultiBoxLoss": ("ssd",),
    "MultiStageMeanfield": ("crfasrnn",),
    "Normalize": ("ssd", "parsenet"),
    "PSROIPooling": ("rfcn",),
    "Padding": ("deeplab_v1",),
    "Permute": ("ssd",),
    "PriorBox": ("ssd",),
    "Proposal": ("faster_rcnn",),
    "ROIPooling": ("faster_rcnn", "rfcn"),
    "ReLU6": ("mobilenet",),
    "Region": ("yolo",),
    "RegionLoss": ("yolo",),
    "Reorg": ("yolo",),
    "ResizeBilinear": ("synopsys",),
    "SegAccuracy": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "ShuffleChannel": ("shufflenet",),
    "SmoothL1Loss": ("faster_rcnn", "rfcn"),
    "SpatialProduct": ("deeplab_v2", "pspnet"),
    "Squeeze": ("synopsys",),
    "UniqueLabel": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "Unpooling": ("deconvnet", "parsenet"),
    "Upsample": ("segnet",),
    "VideoData": ("ssd",),
    "Yolov3DetectionOutput": ("yolo",),
}
"""Layer types that BVLC Caffe does not have -> the forks known for them."""
