"""Settings that change no result at inference: the choice of a kernel, memory, precision of training, caches, logs.

A field of one of these names may stand in any message of any fork, known to the schema or not.
"""

from __future__ import annotations

import re

_INERT = re.compile(
    r"engine|cache|debug|debug_info|display|verbose|threads|parser_threads|transf_threads|prefetch|shuffle|profile_\w+"
    r"|conv_algos_override|conv_algorithm|cudnn_\w+|workspace_\w+|random_seed|device|autotune|reshape_every_iter"
    # NVCaffe: memory, precision and communication; the blobs stay float32 numbers
    r"|eltwise_mem_sharing|(default_)?(forward|backward)_(type|math)|default_(conv|cudnn)\w*_override"
    r"|global_grad_scale\w*|reduce_buckets|larc\w*"
    # memory and number types of other forks, Intel's multinode training, and its calibration for int8
    r"|mem_param|optimize_mem\w*|reduced_memory_inference|compile_net_state|(bn_)?stats_batch_size|multinode|mn_\w+"
    r"|((bottom|top|compute)_)?data_type|(bottom|top)_mlu_dtype|debug_dtype|opt_level|quantization_param"
)


def is_inert(name: str) -> bool:
    """Whether a field of this name changes no result at inference."""
    return _INERT.fullmatch(name) is not None
