"""The miniature: a small DeepLab-LargeFOV in Caffe's files, its settings and a few held-out scenes.

``deeplab-miniature.prototxt`` and ``.caffemodel`` are what a user of Caffe would hold; ``deeplab-miniature.json`` knows
the classes, the palette, the mean, the CRF's parameters and the figures measured; ``scene-*.png`` are pictures the net
has not seen, ``labels-*.png`` their truth. `tools.train_miniature` makes all of them.
"""
