"""The schema of Caffe's files: `caffe.proto`, and `schema` which builds message classes from it at run time."""

from . import schema

__all__ = ["schema"]
