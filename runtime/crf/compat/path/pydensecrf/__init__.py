"""The name `pydensecrf` for the drop-in: importable once `install` has put the folder above this one on `sys.path`."""

from atrous.runtime.crf.compat.names import fill_package

fill_package(__name__)
