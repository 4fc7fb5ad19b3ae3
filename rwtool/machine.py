"""What this process may use of its machine: processor cores and memory, by its affinity and its control groups."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_MEMORY_INFO = Path("/proc/meminfo")
_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")

_MEMORY_FILES = (  # limit, use, and what of the use are cached files, given back when memory is wanted: version 2, 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.high", "memory.current", "inactive_file"),  # above which processes are slowed down until they hardly move
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, a container's limit included; None where nothing tells."""
    free = []
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    if not free:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    for group in _groups("memory"):
        for limit, used, cached in _MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):  # "max" is no number, and no limit
                left = int((group / limit).read_text()) - int((group / used).read_text())
                for line in (group / "memory.stat").read_text().splitlines():
                    if line.startswith(f"{cached} "):
                        left += int(line.split()[1])
                free.append(max(0, left))
    return min(free, default=None)


def available_cores() -> int:
    """Processor cores that this process may use: those of its affinity, or fewer where a container has a quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    for group in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = map(int, (group / "cpu.max").read_text().split())
            cores = min(cores, max(1, math.ceil(quota / period)))
        with contextlib.suppress(OSError, ValueError):
            quota = int((group / "cpu.cfs_quota_us").read_text())  # -1: no limit
            period = int((group / "cpu.cfs_period_us").read_text())
            cores = min(cores, max(1, math.ceil(quota / period)) if quota > 0 else cores)
    return cores


def _groups(controller: str) -> Iterator[Path]:
    """The control groups that this process is in, and those around them: of version 2, and of version 1."""
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            inside = Path(path.lstrip("/"))
            # version 2 lies beside those of version 1 where a machine has both
            roots = [_CGROUPS / controller] if controllers else [_CGROUPS, _CGROUPS / "unified"]
            yield from (root / folder for root in roots for folder in (inside, *inside.parents))
