"""Videos in, videos of overlays out; read back by PyAV."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.errors import ImageError, InputError
from atrous.runtime import load
from atrous.runtime.batch import VideoObserver, label_video
from atrous.runtime.pictures import make_overlay

from ..bundles import CRF, make_image, write_bundle

av = pytest.importorskip("av", reason="PyAV is not installed: pip install av")

HEIGHT, WIDTH, RATE = 48, 64, 10


def write_clip(path: Path, frames: Sequence[np.ndarray], *, audio: bool = False, rotation: int = 0) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=8000) if audio else None
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, 8000 * len(frames) // RATE, 1024):
                wave = np.arange(start, start + 1024, dtype=np.int16)[None]
                frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 8000, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def read_clip(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames]


def make_frames(count: int) -> list[np.ndarray]:
    blocks = np.kron(make_image(HEIGHT // 8, WIDTH // 8, 0), np.ones((8, 8, 1), np.uint8))
    return [np.roll(blocks, 2 * index, axis=1) for index in range(count)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", crf=CRF)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
def test_a_video_of_overlays(bundle: Path, tmp_path: Path, suffix: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", make_frames(5))
    summary = label_video(bundle, clip, tmp_path / f"out{suffix}")
    assert (summary.frames, summary.damaged, summary.warm_starts) == (5, 0, 0)
    found, times = read_clip(tmp_path / f"out{suffix}")
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.002)
    with load(bundle) as segmenter:
        for picture, image in zip(found, read_clip(clip)[0], strict=True):
            overlay = make_overlay(image, segmenter(image), segmenter.bundle.manifest.palette)
            assert np.abs(picture.astype(int) - overlay).mean() < 12  # the codec is lossy


def test_audio_and_odd_sides(bundle: Path, tmp_path: Path) -> None:
    frames = [image[: HEIGHT - 1, : WIDTH - 1] for image in make_frames(12)]
    clip = write_clip(tmp_path / "clip.mkv", frames, audio=True)
    label_video(bundle, clip, tmp_path / "out.mp4", limit_s=0.8)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
        packets = [packet for packet in container.demux(audio=0) if packet.dts is not None]
    with av.open(str(clip)) as container:
        wanted = [packet for packet in container.demux(audio=0) if packet.dts is not None]
    assert [bytes(packet) for packet in packets] == [bytes(packet) for packet in wanted[: len(packets)]]
    assert len(packets) >= 5
    found, _ = read_clip(tmp_path / "out.mp4")
    assert (len(found), found[0].shape) == (8, (HEIGHT, WIDTH, 3))


def test_a_rotated_video_is_upright(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", make_frames(2), rotation=90)
    seen: list[Any] = []

    class Watch(VideoObserver):
        def started(self, segmenter: Any, summary: Any, total: int | None) -> None:
            prepare = segmenter.prepare
            segmenter.prepare = lambda image: seen.append(image) or prepare(image)

    label_video(bundle, clip, tmp_path / "out.mp4", observer=Watch())
    original = read_clip(clip)[0]
    assert len(seen) == 2
    # a quarter turn to the left, as players show it
    assert all(np.array_equal(image, np.rot90(before)) for image, before in zip(seen, original, strict=True))


def test_warm_starts(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [make_image(HEIGHT, WIDTH, 0)] * 4)
    assert label_video(bundle, clip, tmp_path / "out.mp4", crf_updates=2).warm_starts == 3
    with pytest.raises(InputError, match="crf_updates"):
        label_video(bundle, clip, tmp_path / "out.mp4", crf_updates=2, crf=False)


def test_damaged_packets_are_left_out(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", make_frames(6))
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        content = bytearray(clip.read_bytes())
        for packet in packets[2:4]:
            place = content.find(bytes(packet))
            content[place : place + packet.size] = b"\xff" * packet.size
    clip.write_bytes(content)
    summary = label_video(bundle, clip, tmp_path / "out.mp4")
    assert summary.damaged == 2
    assert summary.frames == 4
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "cannot be opened"), (b"text", "cannot be opened"), (None, "no such file")],
)
def test_bad_sources(bundle: Path, tmp_path: Path, content: bytes | None, reason: str) -> None:
    source = tmp_path / "clip.mp4"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        label_video(bundle, source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_a_file_without_video(bundle: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(ImageError, match="has no video"):
        label_video(bundle, tmp_path / "sound.mp4", tmp_path / "out.mp4")


def test_bad_arguments(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", make_frames(1))
    with pytest.raises(InputError, match="suffix must be one of"):
        label_video(bundle, clip, tmp_path / "out.png")
    with pytest.raises(InputError, match="overwrite"):
        label_video(bundle, clip, clip)
    with pytest.raises(InputError, match="limit_s"):
        label_video(bundle, clip, tmp_path / "out.mp4", limit_s=0)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_ctrl_c_writes_nothing_and_leaves_no_thread(bundle: Path, tmp_path: Path, at: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", make_frames(6))
    before = threading.active_count()

    class Interrupt(VideoObserver):
        count = 0

        def labeled(self) -> None:
            if self.count == at:
                raise KeyboardInterrupt
            self.count += 1

    with pytest.raises(KeyboardInterrupt):
        label_video(bundle, clip, tmp_path / "out.mp4", observer=Interrupt())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "clip.mp4"]
    assert threading.active_count() == before


def test_a_stage_that_fails_ends_the_run(bundle: Path, tmp_path: Path) -> None:
    """Frames smaller than 1 x 1 do not exist; a network that refuses the size does."""
    clip = write_clip(tmp_path / "clip.mp4", make_frames(2))
    with load(bundle) as segmenter:
        segmenter.run_network_batch = lambda feeds, **options: 1 / 0  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            label_video(segmenter, clip, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
