"""The schema of Caffe's files: `caffe.proto`, compiled to `caffe.pb`, and `schema`, its message classes."""

from . import schema

__all__ = ["schema"]
