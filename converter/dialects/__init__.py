"""The forks of Caffe: which one wrote a file, and what it does differently."""
