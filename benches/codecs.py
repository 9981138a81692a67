#!/usr/bin/env python3
"""Bits a voxel and speed of `lattice compress` beside Draco, LAZ and zstd, on the same voxels of each scan.

    python3 -m venv env && env/bin/pip install numpy DracoPy 'laspy[lazrs]' zstandard
    cargo build --release
    env/bin/python benches/codecs.py target/release/lattice SCAN:SIZE... [--model learned] [--repeats 3]

The voxels are those that `lattice compress` keeps (one a cell), read back from `lattice decompress`, so every codec gets the same geometry. Draco:
level 10, points in any order, as many bits as the box needs, checked to give the same voxels. LAZ: point format 0, scale 1; the best of the orders
Morton, sorted by x, y, z, and that of the scan where this script can read it (.bin, .npy, .npz, .laz). zstd -19: columns of 16 or 32 bits, plain and
as differences, in the same orders, the best. LAZ and zstd in the scan's order keep that order too; the others give sorted voxels. Seconds are the
best of the repeats, on one thread, without reading files.
"""

import argparse
import io
import json
import subprocess
import tempfile
import time
from pathlib import Path

import DracoPy
import laspy
import numpy as np
import zstandard


def best(repeats, work):
    """Result of `work` and its shortest time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return result, min(times)


def lattice(binary, model, scan, size, repeats, folder):
    """Bytes, seconds in and out, and the voxels."""
    out, back = folder / "a.lat", folder / "a.npy"

    def call(*args):
        text = subprocess.run([binary, *args, "--threads", "1", "--json"], check=True, capture_output=True, text=True).stdout
        return json.loads(text)

    packed = [call("compress", scan, "--model", model, "--voxel-size", size, "--out", out) for _ in range(repeats)]
    read = [call("decompress", out, "--out", back) for _ in range(repeats)]
    report = read[0]
    centres = np.load(back).astype(np.float64)
    voxels = np.rint((centres - report["origin"]) / report["voxel_size"] - 0.5).astype(np.int64)
    return packed[0]["bytes"], min(p["seconds"] for p in packed), min(r["seconds"] for r in read), voxels


def scan_order(scan, size, voxels):
    """The voxels in the order in which the scan meets them; None where the file is of another kind."""
    path = Path(scan)
    if path.suffix == ".bin":
        points = np.fromfile(path, "<f4").reshape(-1, 5 if path.name.endswith(".pcd.bin") else 4)[:, :3]
    elif path.suffix == ".npz":
        points = np.load(path)["xyz"]
    elif path.suffix == ".npy":
        points = np.load(path)[:, :3]
    elif path.suffix == ".laz":
        points = laspy.read(path).xyz
        points = points - points.min(axis=0)
    else:
        return None
    points = np.asarray(points, np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    cells = np.floor(points / float(size)).astype(np.int64)
    if path.suffix == ".laz":  # positions on borders, as the command rounds them
        near = points / float(size)
        border = np.rint(near)
        cells = np.where(np.abs(near - border) < 1e-6, border, np.floor(near)).astype(np.int64)
    first = np.sort(np.unique(cells, axis=0, return_index=True)[1])
    cells = cells[first]
    same = len(cells) == len(voxels) and np.array_equal(np.unique(cells, axis=0), np.unique(voxels, axis=0))
    return cells if same else None


def draco(voxels, repeats):
    low = voxels.min(axis=0)
    bits = max(int((voxels - low).max()).bit_length(), 1)
    points = (voxels - low).astype(np.float32)
    options = dict(quantization_bits=bits, compression_level=10, quantization_range=float(2**bits - 1), quantization_origin=[0, 0, 0], preserve_order=False)
    packed, to = best(repeats, lambda: DracoPy.encode(points, **options))
    read, back = best(repeats, lambda: DracoPy.decode(packed).points)
    assert np.array_equal(np.unique(np.rint(read).astype(np.int64), axis=0), np.unique(voxels - low, axis=0)), "Draco lost voxels"
    return len(packed), to, back


def laz(voxels, repeats):
    header = laspy.LasHeader(point_format=0, version="1.2")
    header.scales, header.offsets = [1, 1, 1], [0, 0, 0]
    data = laspy.LasData(header)
    data.X, data.Y, data.Z = (voxels - voxels.min(axis=0)).T

    def pack():
        out = io.BytesIO()
        data.write(out, do_compress=True, laz_backend=laspy.LazBackend.Lazrs)
        return out.getvalue()

    packed, to = best(repeats, pack)
    _, back = best(repeats, lambda: laspy.read(io.BytesIO(packed), laz_backend=laspy.LazBackend.Lazrs))
    return len(packed), to, back


def zstd(voxels, repeats):
    shifted = voxels - voxels.min(axis=0)
    results = []
    for values in (shifted, np.diff(shifted, axis=0, prepend=shifted[:1])):
        wide = "<i4" if np.abs(values).max() > 32767 else "<i2"
        raw = np.ascontiguousarray(values.astype(wide).T).tobytes()
        coder = zstandard.ZstdCompressor(level=19)
        packed, to = best(1, lambda: coder.compress(raw))
        _, back = best(repeats, lambda: zstandard.ZstdDecompressor().decompress(packed))
        results.append((len(packed), to, back))
    return min(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("scans", nargs="+", metavar="SCAN:SIZE")
    parser.add_argument("--model", default="contexts", choices=["contexts", "learned"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print("| scan | voxel size | voxels | lattice | Draco | LAZ | zstd -19 | lattice in / out | Draco in / out | LAZ in / out | zstd in / out |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for pair in args.scans:
            scan, size = pair.rsplit(":", 1)
            n_bytes, to, back, voxels = lattice(args.binary, args.model, scan, size, args.repeats, Path(folder))
            n = len(voxels)
            orders = [voxels, voxels[np.lexsort(voxels.T[::-1])]]
            in_scan = scan_order(scan, size, voxels)
            if in_scan is not None:
                orders.append(in_scan)
            results = [
                (n_bytes, to, back),
                draco(voxels, args.repeats),
                min(laz(order, args.repeats) for order in orders),
                min(zstd(order, args.repeats) for order in orders),
            ]
            bits = " | ".join(f"{8 * r[0] / n:.2f}" for r in results)
            speed = " | ".join(f"{n / r[1] / 1e6:.2f} / {n / r[2] / 1e6:.2f}" for r in results)
            mark = "" if in_scan is not None else " *"
            print(f"| {Path(scan).name}{mark} | {size} | {n:,} | {bits} | {speed} |", flush=True)


if __name__ == "__main__":
    main()
