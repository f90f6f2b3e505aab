"""Run a converted net in OpenCV 5: `python examples/opencv5.py net.onnx photo.jpg HEIGHT WIDTH`.

`atrous convert deploy.prototxt net.caffemodel -o net.onnx` writes the ONNX file, which takes what Caffe took: float32
N x C x H x W, usually BGR minus a mean. That mean and the scale are yours to give, as with readNetFromCaffe.
"""

import sys

import cv2
import numpy as np

MEAN = (104.008, 116.669, 122.675)  # blue, green, red, as DeepLab


def main(model: str, photo: str, height: str, width: str) -> None:
    """Print the classes that the net sees, with their share of the pixels."""
    image = cv2.imread(photo)
    blob = cv2.dnn.blobFromImage(image, 1.0, (int(width), int(height)), MEAN)
    net = cv2.dnn.readNetFromONNX(model)
    net.setInput(blob)
    scores = net.forward()  # N x classes x H x W
    labels, counts = np.unique(scores[0].argmax(0), return_counts=True)
    for label, count in zip(labels, counts, strict=True):
        print(f"class {label}: {count / counts.sum():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
