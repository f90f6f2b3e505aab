"""A result of `atrous bench` with every part in it, drawn from a seed: what the report is tested on."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from atrous.runtime.benchmark import results as r

QUANTILES = (0.5, 0.9, 0.99, 0.999)


def make_series(values: np.ndarray, start_s: float = 1.0) -> r.Series:
    values = np.asarray(values, float)
    at = start_s + np.concatenate([[0], np.cumsum(values)[:-1]]) / 1000
    quantiles = []
    for q in QUANTILES:
        value = float(np.quantile(values, q))
        known = len(values) * (1 - q) >= 5
        quantiles.append(
            r.Quantile(
                q=q,
                value_ms=value if known else None,
                low_ms=value * 0.98 if known else None,
                high_ms=value * 1.03 if known else None,
                reason=None if known else f"{len(values)} samples are too few",
            )
        )
    return r.Series(
        at_s=tuple(at.tolist()),
        values_ms=tuple(values.tolist()),
        mean_ms=float(values.mean()),
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        quantiles=tuple(quantiles),
    )


def make_subject(name: str, speed: float, seed: int, *, hostile: str = "") -> r.Subject:
    draw = np.random.default_rng(seed)
    backend, precision = name.split(":")

    def stage(kind: r.StageName, ms: float) -> r.Stage:
        return r.Stage(name=kind, clock="monotonic", series=make_series(ms * (1 + 0.05 * draw.gamma(2, 1, 400))))

    compute = 30 / speed
    parts = [stage("decode", 4), stage("prepare", 0.4), stage("compute", compute), stage("scores", 2)]
    parts += [stage("crf", 60), stage("labels", 1), stage("encode", 3), stage("end_to_end", compute + 70.4)]
    queries = compute * (1 + draw.gamma(1, 1.5, 600))
    queries[300:330] += np.linspace(900, 20, 30)
    run = r.LoadRun(
        scenario="Server",
        mode="performance",
        settings={"target_qps": 12.0, "latency_bound_ms": 400.0},
        includes=("prepare", "compute"),
        valid=False,
        reasons=(f"latency bound missed {hostile}",),
        metric="completed_qps",
        metric_unit="1/s",
        metric_value=11.9,
        latency=make_series(queries),
        service_ms=tuple((compute * (1 + 0.05 * draw.gamma(2, 1, 600))).tolist()),
        queries=600,
        duration_s=50.0,
        throughput_per_s=11.9,
        summary={"Result is": "INVALID"},
    )
    curve = tuple(
        r.CurvePoint(
            offered_per_s=rate,
            completed_per_s=min(rate, 28 * speed),
            kept_up=rate <= 28 * speed,
            quantiles=make_series(compute * (1 + draw.gamma(1, rate / 20, 500))).quantiles,
            queries=500,
        )
        for rate in (5.0, 10.0, 20.0, 26.0, 40.0)
    )
    p50 = r.Quantile(q=0.5, value_ms=compute, low_ms=compute * 0.99, high_ms=compute * 1.01)
    accuracy = tuple(
        r.Accuracy(
            crf=crf,
            images=200,
            reference="onnxruntime:fp32",
            label_agreement=1.0 if speed == 1 else 0.9962,
            miou=miou,
            pixel_accuracy=miou + 0.05,
            latency_ms=p50,
            images_per_s=rate,
        )
        for crf, miou, rate in (("off", 0.868 - 0.004 * speed, 30 * speed), ("bundle", 0.927, 10 + speed))
    )
    return r.Subject(
        name=name,
        backend=backend,
        device="cpu",
        precision=precision,
        threads=2,
        bundle=f"deeplab-miniature{hostile}",
        bundle_sha256="ab" * 32,
        head="scores",
        classes=6,
        image_height=240,
        image_width=320,
        crf={"mode": "deeplab"},
        stages=r.StageView(
            warmup=r.Warmup(stable=True, runs=12, duration_s=1.0, window_medians_ms=(31.0, 30.5, 30.4), bound=0.1),
            stages=tuple(parts),
            absent={"h2d": "the network runs where the image is", "d2h": "the network runs where the image is"},
            images=400,
            throughput_per_s=1000 / (compute + 70.4),
        ),
        pipeline=make_pipeline(compute, draw, hostile=hostile),
        load=(run,),
        curve=curve,
        accuracy=accuracy,
        roofline=r.Roofline(
            device="cpu",
            threads=2,
            peak_gflops=180.0,
            bandwidth_gb_s=26.0,
            method="largest float32 matrix product; a copy of 256 MB",
            model=r.ModelCost(flops=3.1e9, weight_bytes=1.7e6, activation_bytes=9.1e7),
            achieved_gflops=3.1 / compute * 1000,
            attainable_gflops=180.0,
            share=3.1 / compute * 1000 / 180,
        ),
        noise=r.Noise(
            conclusive=speed == 1,
            checks=(
                r.NoiseCheck(name="drift", value=0.2, bound=0.1, passed=speed == 1, text="The median drifted by 20 %."),
            ),
        ),
    )


def make_pipeline(compute: float, draw: np.random.Generator, *, hostile: str) -> r.PipelineView:
    """Two cores, a CRF of 66 ms beside the network."""
    shares = {
        "decode": (0.1, 0.0, 0.3),
        "network": (0.5, 0.1, 0.3),
        "crf": (0.8, 0.05, 0.15),
        "encode": (0.1, 0.7, 0.2),
    }
    times = {"decode": 4.0, "network": compute * 1.4, "crf": 66.0, "encode": 3.0}
    rate = 2000 / sum(times.values())
    return r.PipelineView(
        images_per_round=24,
        cores=2,
        network_threads=1,
        crf_threads=1,
        time_per_image=make_series(draw.normal(1000 / rate, 0.2, 9)),
        throughput_per_s=rate,
        low_per_s=rate * 0.98,
        high_per_s=rate * 1.02,
        one_by_one_per_s=1000 / (compute + 70.4),
        overlap=0.45,
        core_share=0.97,
        calls_at_once=1.94,
        bounds_per_s={"network": 2000 / times["network"], "crf": 30.3, "cores": rate * 1.04},
        limit="cores",
        efficiency=0.96,
        advice=(f"the bottleneck is crf: 66 ms an item{hostile}", "what helps: more cores"),
        agreement=1.0 if not hostile else 0.9999,
        noise=r.Noise(conclusive=True, checks=()),
        stages=tuple(
            r.PipelineStage(
                name=name,
                workers=1.9 if name == "crf" else 1.0,
                most_workers=2,
                max_workers=2,
                cores=1,
                item_ms=ms,
                p90_ms=ms * 1.1,
                busy_share=shares[name][0],
                starved_share=shares[name][1],
                core_wait_share=shares[name][2],
                blocked_share=0.0,
                queue_capacity=4,
                queue_mean_depth=1.5,
                alone_ms=ms * 0.7,
            )
            for name, ms in times.items()
        ),
    )


def make_result(*, hostile: str = "") -> r.BenchResult:
    """Two subjects with every view; `hostile` is put where a file's names and texts end up."""
    draw = np.random.default_rng(3)
    at = tuple(np.arange(0.0, 60.0, 0.5).tolist())

    def column(middle: float, spread: float) -> tuple[float, ...]:
        return tuple((middle + spread * draw.random(len(at))).tolist())

    nothing = (None,) * len(at)
    trace = r.MachineTrace(
        interval_s=0.5,
        at_s=at,
        cpu_mhz=column(3000, 200),
        cpu_busy=column(0.8, 0.1),
        own_busy=column(0.7, 0.1),
        steal=nothing,
        load_1min=column(1.5, 0.2),
        temperature_c=nothing,
        memory_available_mb=column(9000, 10),
        resident_mb=column(300, 2),
        unavailable={"temperature_c": "no sensor in a virtual machine"},
    )
    environment = r.Environment(
        host="bench",
        system="Linux 6.1",
        python="3.11.7",
        cpu=r.CpuInfo(
            name="AMD EPYC",
            features=("avx2", "avx512f"),
            cores=2,
            usable_cores=2,
            governor=None,
            max_mhz=None,
            cgroup_cpus=None,
            virtualization="kvm",
        ),
        memory_mb=24000.0,
        gpus=(),
        libraries={"numpy": "2.3.0", "onnxruntime": "1.32.0"},
        variables={"OMP_NUM_THREADS": "2"},
        load_1min_before=0.1,
        git=None,
    )
    return r.BenchResult(
        atrous_version="0.1.0",
        created=datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc),
        duration_s=93.0,
        command=("atrous", "bench", f"bundle{hostile}", "--vs", "onnxruntime:int8"),
        dataset=f"scenes{hostile}",
        images=("a.png", "b.png"),
        environment=environment,
        subjects=(make_subject("onnxruntime:fp32", 1.0, 1, hostile=hostile), make_subject("onnxruntime:int8", 2.4, 2)),
        comparisons=(
            r.Comparison(
                baseline="onnxruntime:fp32",
                candidate="onnxruntime:int8",
                stage="compute",
                ratio=0.417,
                low=0.41,
                high=0.425,
                paired=True,
                bound=0.05,
                verdict="improvement",
                reason="onnxruntime:int8 takes 0.417 of the time (0.410 to 0.425).",
            ),
        ),
        canary=make_series(draw.normal(2, 0.01, 300)),
        machine_trace=trace,
        warnings=(f"Seeded weights{hostile}",),
    )
