"""Bytes and text to messages and arrays: prototxt, caffemodel, HDF5."""
