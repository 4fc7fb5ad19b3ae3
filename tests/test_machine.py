import os

import pytest

from rwtool import machine
from rwtool.machine import available_cores, available_memory


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Write what the kernel tells: the memory of the machine, the groups of this process, and files of the groups."""
    monkeypatch.setattr(machine, "_MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")

    def write(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def memory(limit, used, cached=0):
    return {
        "memory.max": limit,
        "memory.current": used,
        "memory.stat": f"anon 1\ninactive_file {cached}\nactive_file 5\n",
    }


def memory_1(limit, used, cached=0):
    stat = f"inactive_file 7\ntotal_inactive_file {cached}\n"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


def within(folder, files):
    return {f"{folder}/{name}": f"{content}\n" for name, content in files.items()}


@pytest.mark.parametrize(
    ("membership", "files", "free"),
    [
        ("0::/\n", {}, 8000 * 1024),
        ("", {}, 8000 * 1024),
        ("0::/\n", within(".", memory("max", 900_000)), 8000 * 1024),
        ("0::/\n", within(".", memory(1_000_000, 900_000, 300_000)), 400_000),
        ("0::/a/b\n", within(".", memory(1_000_000, 900_000)), 100_000),  # the path is that of the host
        ("0::/a/b\n", within("a", memory(1_000_000, 900_000)) | within("a/b", memory("max", 5)), 100_000),
        ("0::/a/b\n", within("a", memory(1_000_000, 500_000)) | within("a/b", memory(300_000, 5)), 299_995),
        ("0::/a\n", within("b", memory(1_000_000, 900_000)), 8000 * 1024),
        ("0::/\n", within(".", memory(1_000_000, 2_000_000)), 0),
        ("4:memory:/a\n0::/\n", within("memory/a", memory_1(1_000_000, 900_000, 300_000)), 400_000),
        ("4:memory:/a/b\n", within("memory/a", memory_1(1_000_000, 900_000)), 100_000),
        ("4:memory:/\n", within("memory", memory_1(9_223_372_036_854_771_712, 900_000)), 8000 * 1024),
        ("4:cpu:/a\n", within("memory/a", memory_1(1_000_000, 900_000)), 8000 * 1024),
        (  # a parent's limit, nested twice below it
            "4:memory:/a/b/c\n",
            within("memory/a", memory_1(1_000_000, 900_000))
            | within("memory/a/b", memory_1(2_000_000, 1))
            | within("memory/a/b/c", memory_1(3_000_000, 1)),
            100_000,
        ),
        ("4:cpu,memory:/a\n0::/a\n", within("memory/a", memory_1(1_000_000, 900_000)), 100_000),
        ("1:cpu:/\n0::/a/b\n", within("unified/a", memory(1_000_000, 900_000)), 100_000),  # both versions at once
        ("0::/a\n", within("a", memory("max", 900_000) | {"memory.high": 1_200_000}), 300_000),
        ("0::/a\n", within("a", memory(1_000_000, 900_000) | {"memory.high": "max"}), 100_000),
        ("0::/../a\n", within(".", memory(1_000_000, 900_000)), 100_000),  # of another namespace
    ],
)
def test_free_memory_is_that_of_the_tightest_group_and_cached_files_are_free(groups, membership, files, free):
    groups(membership, files)
    assert available_memory() == free


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {}, 16),
        ("0::/a\n", within("a", {"cpu.max": "max 100000"}), 16),
        ("0::/a\n", within("a", {"cpu.max": "250000 100000"}), 3),
        ("0::/a/b\n", within("a", {"cpu.max": "400000 100000"}) | within("a/b", {"cpu.max": "max 100000"}), 4),
        ("0::/a\n", within("a", {"cpu.max": "10000 100000"}), 1),
        ("0::/a\n", within("a", {"cpu.max": "9900000 100000"}), 16),
        ("1:cpu,cpuacct:/a\n", within("cpu/a", {"cpu.cfs_quota_us": 200_000, "cpu.cfs_period_us": 100_000}), 2),
        ("1:cpu:/a\n", within("cpu/a", {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100_000}), 16),
        (
            "1:cpu:/a/b\n",
            within("cpu/a", {"cpu.cfs_quota_us": 300_000, "cpu.cfs_period_us": 100_000})
            | within("cpu/a/b", {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100_000}),
            3,
        ),
        ("4:memory:/\n0::/a\n", within("unified/a", {"cpu.max": "200000 100000"}), 2),
    ],
)
def test_cores_are_those_of_the_affinity_within_the_quota_of_the_groups(groups, membership, files, cores):
    groups(membership, files)
    assert available_cores() == cores


def test_without_affinity_all_cores_count(groups, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6


def test_where_the_kernel_tells_nothing_half_of_the_memory_counts_as_free(groups, monkeypatch, tmp_path):
    (tmp_path / "meminfo").unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_memory() == 2_048_000
