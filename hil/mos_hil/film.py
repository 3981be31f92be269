"""What a host sees in a file: ffprobe and ffmpeg, never MOS. Frames are decoded, not only listed."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


class Unreadable(AssertionError):
    """A file that is empty, or that ffmpeg cannot decode to its end."""


@dataclass(frozen=True)
class Film:
    """One file: presentation times of its decoded frames, in seconds from its start."""

    width: int
    height: int
    codec: str
    times: tuple[float, ...]


def look(file: Path) -> Film:
    if file.stat().st_size == 0:
        raise Unreadable(f"{file.name} is empty")
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "json", "-show_frames", "-show_streams", str(file)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or done.stderr.strip():
        raise Unreadable(f"{file.name}: {done.stderr.strip() or done.returncode}")
    found = json.loads(done.stdout)
    frames = [float(f["pts_time"]) for f in found.get("frames", []) if f.get("media_type") == "video"]
    if not frames:
        raise Unreadable(f"{file.name} has no frame that decodes")
    stream = found["streams"][0]
    return Film(stream["width"], stream["height"], stream["codec_name"], tuple(frames))


def gray(file: Path, x: int, y: int, width: int, height: int) -> list[bytes]:
    """A part of every frame of a file, as one byte of brightness per pixel."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(file), "-fps_mode", "passthrough", "-vf", f"format=gray,crop={width}:{height}:{x}:{y}:exact=1", "-f", "rawvideo", "-"],
        capture_output=True,
    )
    if done.returncode != 0:
        raise Unreadable(f"{file.name}: {done.stderr.decode(errors='replace').strip()}")
    size = width * height
    return [done.stdout[at : at + size] for at in range(0, len(done.stdout), size)]
