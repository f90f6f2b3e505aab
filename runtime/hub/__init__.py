"""Bundles on the Hugging Face Hub: the model card, upload and download."""
