"""The machine as far as it explains the figures: processors, memory, and how long a sync of the data folder takes."""

import os
import platform
import time
from pathlib import Path

SYNCS = 100


def field(path, name):
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def file_system(folder):
    """The type of the file system that a folder is on."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def describe(folder):
    probe = folder / "fsync.probe"
    taken = []
    with open(probe, "wb") as file:
        for _ in range(SYNCS):
            file.write(b"\7" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    probe.unlink()
    taken.sort()
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "model": field("/proc/cpuinfo", "model name"),
        "memory_mib": int(field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "fsync_p50_us": round(taken[SYNCS // 2] * 1e6),
        "fsync_p99_us": round(taken[SYNCS - 1] * 1e6),
        "load_at_start": os.getloadavg()[0],
    }


def sentence(machine):
    return (
        f"{machine['cpus']} processors, {machine['model']}, {machine['memory_mib']} MiB; {machine['file_system']}, "
        f"fdatasync p50 {machine['fsync_p50_us']} µs, p99 {machine['fsync_p99_us']} µs; load {machine['load_at_start']:.1f}"
    )
