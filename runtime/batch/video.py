"""`label_video`: a video or camera through the pipeline to a video of overlays.

Frames pass every stage in order, by one worker each, so that the CRF can start from the frame before. Decoding, and
encoding the result, run in the caller's thread; audio packets are copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import prepare_folder, write_file
from ...dependencies import import_crf, import_optional
from ...errors import ImageError, InputError
from ..images import MAX_PIXELS
from ..loading import load
from ..pictures import make_overlay
from ..pipeline import Pipeline, PipelineReport
from ..pipeline.engine import count_cores
from ..pipeline.segmentation import make_stages
from ..segmentation import Segmentation
from ..segmenter import Segmenter

Frame = npt.NDArray[np.uint8]

#: containers that `label_video` reads and writes, by suffix
VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}

_CAMERA = "/dev/video"
_CAMERA_RATE = 30  # frames a second, if the camera states none


@dataclass
class VideoSummary:
    """Counts of a labeled video.

    Attributes:
        frames: number of frames written.
        damaged: number of packets that could not be decoded and were left out.
        warm_starts: frames whose CRF started from the frame before.
        pipeline: rates and bottleneck; None before the end.
    """

    frames: int = 0
    damaged: int = 0
    warm_starts: int = 0
    pipeline: PipelineReport | None = None


class VideoObserver:
    """Ignores the events of a video, in the calling thread; inherit from it and override what you need."""

    def started(self, segmenter: Segmenter, summary: VideoSummary, total: int | None) -> None:
        """The bundle is loaded and the video open; `total` is its number of frames, None if it does not state one."""
        return

    def labeled(self) -> None:
        """A frame is written."""
        return


def is_video(source: str | Path) -> bool:
    """Whether a path is a camera or has the suffix of a video."""
    return str(source).startswith(_CAMERA) or Path(source).suffix.lower() in VIDEO_FORMATS


def label_video(
    bundle: str | Path | Segmenter,
    source: str | Path,
    out: str | Path,
    *,
    crf_updates: int | None = None,
    cores: int | None = None,
    limit_s: float | None = None,
    observer: VideoObserver | None = None,
    **load_options: Any,
) -> VideoSummary:
    """Label the frames of a video and write them as a video of overlays, with the audio of the source.

    Args:
        bundle: a bundle's folder, or a loaded segmenter, which stays open.
        source: a video file, or a camera such as `/dev/video0`, which runs until `limit_s` or Ctrl-C.
        out: the file to write; its suffix gives the format. It appears when it is complete.
        crf_updates: updates of the CRF for a frame that starts from the one before, such as 3: faster, with other
            labels in moving scenes (see `crf.FrameCrf`). None refines every frame as an image of its own.
        cores: CPU cores to use; None for all.
        limit_s: stop after this many seconds of the source.
        observer: receives the events.
        load_options: further arguments of `runtime.load` for a bundle given by its folder.

    Returns:
        The counts.

    Raises:
        InputError: if an argument is invalid.
        ImageError: if the source cannot be opened, has no video, or none of its frames can be decoded.
        BundleError, BackendError: as `runtime.load`.
        OutputError: if the result cannot be written.
        MissingDependencyError: if PyAV is not installed.
        KeyboardInterrupt: at Ctrl-C, unless the source is a camera; nothing is written.
    """
    out = Path(out)
    if out.suffix.lower() not in VIDEO_FORMATS:
        raise InputError(f"{out} is not the name of a video: its suffix must be one of {', '.join(VIDEO_FORMATS)}")
    if os.path.realpath(out) == os.path.realpath(source):
        raise InputError(f"{out} would overwrite its source: choose another name")
    if limit_s is not None and not limit_s > 0:
        raise InputError(f"limit_s must be above 0, got {limit_s}")
    prepare_folder(out.parent)
    cores = cores or count_cores()
    with ExitStack() as stack:
        video = stack.enter_context(_Video(source, limit_s))
        if isinstance(bundle, Segmenter):
            segmenter = bundle
        else:
            segmenter = stack.enter_context(load(bundle, threads=cores, **load_options))
        summary = VideoSummary()
        observer = observer or VideoObserver()
        observer.started(segmenter, summary, video.total)
        palette = segmenter.bundle.manifest.palette

        def finish(item: tuple[int, Frame], image: Frame, result: Segmentation) -> tuple[int, Frame]:
            return item[0], make_overlay(image, result.labels, palette)

        refine = None
        if segmenter.crf is not None and not segmenter.crf_shortcuts:
            refine = import_crf().FrameCrf(
                segmenter.crf, updates=crf_updates, threads=cores, device=segmenter.crf_device
            )
        elif crf_updates is not None:
            raise InputError("crf_updates needs a CRF without shortcuts: leave it out, or crf_shortcuts")
        stages = make_stages(segmenter, read=lambda item: item[1], finish=finish, cores=cores, run_crf=refine)
        pipeline = Pipeline(stages, cores=cores, workers=dict.fromkeys((stage.name for stage in stages), 1))

        def write(file: IO[bytes]) -> None:
            writer = _Writer(file, VIDEO_FORMATS[out.suffix.lower()], video)
            try:
                with pipeline:
                    for outcome in pipeline.run(video.frames(writer.copy)):
                        if outcome.error is not None:
                            raise outcome.error
                        writer.write(*outcome.value)
                        summary.frames += 1
                        observer.labeled()
            except KeyboardInterrupt:
                if not video.is_camera:
                    raise
            summary.damaged, summary.pipeline = video.damaged, pipeline.report()
            summary.warm_starts = 0 if refine is None else refine.warm_starts
            if not summary.frames:
                raise ImageError("none of its frames can be decoded", path=video.path)
            writer.close()

        write_file(out, write)
    return summary


class _Video:
    """An open source: its frames upright in RGB, and what its result needs to know."""

    def __init__(self, source: str | Path, limit_s: float | None) -> None:
        self.path, self.damaged = Path(source), 0
        self.is_camera = str(source).startswith(_CAMERA)
        self._limit_s = limit_s
        self._begin_s: Any = None  # time of the first frame
        self._av = import_optional("av")
        if not self.is_camera and not self.path.is_file():
            raise ImageError("there is no such file" if not self.path.exists() else "is not a file", path=self.path)
        try:
            # "file:" keeps a name such as "concat:a" from being taken for a protocol
            name = str(source) if self.is_camera else f"file:{source}"
            self.container = self._av.open(name, format="v4l2" if self.is_camera else None)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError(f"cannot be opened as a video: {reason}", path=self.path) from error
        streams = self.container.streams
        if not streams.video:
            self.container.close()
            raise ImageError("has no video", path=self.path)
        self.stream = streams.video[0]
        self.audio = None if self.is_camera or not streams.audio else streams.audio[0]
        self.total = self.stream.frames or None

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    def frames(self, copy: Callable[[Any], None]) -> Iterator[tuple[int, Frame]]:
        """Yield (time in units of the stream, H x W x 3 uint8 RGB) and pass audio packets to `copy`."""
        moment = 0
        for packet in self.container.demux(*filter(None, (self.stream, self.audio))):
            if packet.stream is self.audio:
                if packet.dts is not None and not self._is_late(packet.dts * packet.time_base):
                    copy(packet)
                continue
            try:
                decoded = packet.decode()
            except self._av.FFmpegError:
                self.damaged += 1
                continue
            for frame in decoded:
                if frame.width * frame.height > MAX_PIXELS:
                    raise ImageError(f"has frames of {frame.width}x{frame.height} pixels: too many", path=self.path)
                moment = frame.pts if frame.pts is not None else moment + 1
                if self._begin_s is None:
                    self._begin_s = moment * self.stream.time_base
                if self._is_late(moment * self.stream.time_base):
                    return
                image = frame.to_ndarray(format="rgb24")
                yield moment, np.ascontiguousarray(np.rot90(image, frame.rotation // 90))

    def _is_late(self, time_s: Any) -> bool:
        if self._limit_s is None or self._begin_s is None:
            return False
        return float(time_s - self._begin_s) >= self._limit_s


class _Writer:
    """A video file under way, with the times of its source."""

    def __init__(self, file: IO[bytes], container_format: str, source: _Video) -> None:
        self._av = import_optional("av")
        self._source = source
        self._container = self._av.open(file, "w", format=container_format)
        rate = source.stream.average_rate or source.stream.guessed_rate or _CAMERA_RATE
        self._stream = self._container.add_stream(self._container.default_video_codec, rate=rate)
        self._stream.time_base = self._stream.codec_context.time_base = source.stream.time_base
        self._audio = None
        if source.audio is not None and source.audio.codec_context.name in self._container.supported_codecs:
            self._audio = self._container.add_stream_from_template(source.audio)
        self._last: int | None = None
        self._early: list[Any] = []  # audio that waits for the first frame, whose size the file starts with

    def _mux_early(self) -> None:
        while self._early:
            self._container.mux(self._early.pop(0))

    def copy(self, packet: Any) -> None:
        """Add a packet of the source's audio."""
        if self._audio is not None:
            packet.stream = self._audio
            self._early.append(packet)
        if self._last is not None:
            self._mux_early()

    def write(self, moment: int, picture: Frame) -> None:
        """Add a frame: its time in units of the source, H x W x 3 uint8 RGB."""
        if self._last is not None and moment <= self._last:
            moment = self._last + 1  # encoders need rising times
        height, width = (side + side % 2 for side in picture.shape[:2])  # H.264 needs even sides
        if self._last is None:
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
        self._last = moment
        padded = np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(padded, format="rgb24")
        frame.pts, frame.time_base = moment, self._source.stream.time_base
        self._container.mux(self._stream.encode(frame))
        self._mux_early()

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
