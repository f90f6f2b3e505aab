"""The official DeepLab models: their addresses (unverified), the download, and the settings that belong to each."""
