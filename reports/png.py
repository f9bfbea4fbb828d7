"""Images as data URIs: a PNG encoder small enough to need no image library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


def data_uri(pixels: np.ndarray) -> str:
    """``pixels`` (height, width) or (height, width, 3), uint8, as a PNG data URI."""
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    # Each row is preceded by its filter type; 0 means the bytes are as they are.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    data = b"\x89PNG\r\n\x1a\n"
    data += _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    data += _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    data += _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def shades(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """An image (1 or 3, height, width) of values in [low, high] as 8-bit pixels; outside is clipped."""
    scaled = np.clip((np.asarray(image, np.float64) - low) / (high - low), 0, 1)
    return _channels_last(np.round(scaled * 255).astype(np.uint8))


def signed(change: np.ndarray) -> tuple[np.ndarray, float]:
    """A change (1 or 3, height, width) as pixels, and its largest absolute value.

    One channel: white at zero, blue where it darkens, orange where it brightens (a pair that the
    colour-blind can tell apart). Three channels: grey at zero.
    """
    change = np.asarray(change, np.float64)
    peak = float(np.abs(change).max())
    unit = change / peak if peak > 0 else change
    if change.shape[0] == 1:
        return diverging(unit[0]), peak
    return _channels_last(np.round(127.5 + 127.5 * unit).astype(np.uint8)), peak


def diverging(unit: np.ndarray) -> np.ndarray:
    """Values (height, width) in [-1, 1] from blue over white to orange, as RGB pixels."""
    ends = np.where(unit[..., None] < 0, np.array([0.0, 103, 165]), np.array([194.0, 78, 0]))
    weight = np.abs(np.clip(unit, -1, 1))[..., None]
    return np.round(255 * (1 - weight) + ends * weight).astype(np.uint8)


def shrink(image: np.ndarray, most: int) -> np.ndarray:
    """An image (channels, height, width) averaged over square blocks until no side exceeds ``most``."""
    block = -(-max(image.shape[1:]) // most)
    if block <= 1:
        return image
    height, width = (side // block * block for side in image.shape[1:])
    cut = np.asarray(image[:, :height, :width], np.float64)
    return cut.reshape(len(cut), height // block, block, width // block, block).mean(axis=(2, 4))


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    return pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, -1)


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
