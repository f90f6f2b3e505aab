"""Names that the modules of this package share."""

FOLDER = "folder"
"""Key of a dataset made of any two folders; see `.folders`."""
