"""Label a dataset of images on Ray: `pip install 'atrous[cpu,ray]'`, `python ray_dataset.py BUNDLE photos labeled`.

Folders or addresses of an object store; the bundle lies at the same path on all nodes. For files in and out that resume
after a failure, use `atrous segment --ray`.
"""

import sys

import ray

from atrous.runtime.batch import RayNodes, label_dataset


def main(bundle: str, photos: str, out: str) -> None:
    """Write Parquet files with the columns path, labels (bytes of a PNG) and error."""
    images = ray.data.read_binary_files(photos, include_paths=True)
    cores = int(ray.cluster_resources()["CPU"])
    nodes = RayNodes(actors=max(1, cores - 1), cores=1)  # the last core reads and writes
    labeled = label_dataset(images, bundle, nodes=nodes)
    labeled.drop_columns(["bytes"]).write_parquet(out)


if __name__ == "__main__":
    ray.init(log_to_driver=False)
    main(*sys.argv[1:])
