"""Caffe messages -> `Net`: select layers, resolve names, compute shapes, attach weights."""
