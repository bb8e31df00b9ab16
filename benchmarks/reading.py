"""Random batches of an archive by gapzoo's loader, np.memmap, xarray + dask and xbatcher, one run.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/reading.py [ARCHIVE] [--unet]

Each reads the same steps, state and forcing, in the same random order, in one process on one
thread, after a pass that brings the files into memory; rounds alternate and the best counts. The
loader is what a Trainer gets; "normalised" adds what the training's device does with a batch. The
numbers are samples a second of wall-clock time and of CPU time. Without ARCHIVE (gapzoo build-data
makes archives/speedy-t21.zarr) one of noise is made; --steps should fit in memory. --unet takes
training steps of unet_small, with and without reading ahead, and tells how long they wait for a
batch; --cold drops the files from the system's cache before each round (root, Linux).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import torch
import xarray as xr
import xbatcher

from gapzoo.core import Channels, Grid
from gapzoo.data import statistics
from gapzoo.data.ahead import AheadLoader
from gapzoo.data.archive import SHARD, Archive, ArchiveSpec, create, write_shard
from gapzoo.data.module import Raw, Reader, States, world_of
from gapzoo.training import UNetDenoiser

NAMES = ("state", "forcing")
UNET_STEPS = 8
Batches = Callable[[list[np.ndarray]], Iterator[object]]


def noise_archive(path: Path, shards: int = 24) -> Path:
    """37 channels on 64x32, six-hourly: the shape of speedy-t21."""
    rng = np.random.default_rng(0)
    grid = Grid(tuple(-90 + 5.625 * (np.arange(32) + 0.5)), tuple(5.625 * np.arange(64)))
    times = pd.date_range("2000-01-01", periods=shards * SHARD, freq="6h")
    labels = [f"temperature@{level}" for level in range(1, 38)]
    static = {n: np.zeros(grid.shape) for n in ("geopotential_at_surface", "land_sea_mask")}
    forcings = ("sea_surface_temperature", "sea_ice_cover")
    runs = np.zeros(len(times))
    create(path, ArchiveSpec(grid, Channels(labels), forcings, static, times, runs))
    for shard in range(shards):
        fields = (rng.standard_normal((SHARD, n, 32, 64), np.float32) for n in (37, 2))
        write_shard(path, shard, *fields)
    archive = Archive(path)
    last = str(times[-1])[:10]
    statistics.store(path, statistics.compute(archive, "2000-01-01", last))
    return path


def memmap(archive: Archive) -> Batches:
    """Batches from shard files that are mapped by hand."""
    maps = {name: _mapped(archive, name) for name in NAMES}

    def run(orders: list[np.ndarray]) -> Iterator[object]:
        for rows in orders:
            yield [
                np.stack([maps[n][r // archive.shard][r % archive.shard] for r in rows.tolist()])
                for n in NAMES
            ]

    return run


def memmap_again(archive: Archive, arrays: int = 1) -> Batches:
    """The same into arrays that are used again: no batch pays for new memory.

    One array stays in the processor's cache; with two in turn a batch outlives the reading of the
    next, as one does that a network works on.
    """
    maps = {name: _mapped(archive, name) for name in NAMES}
    kept: dict[tuple[int, str], np.ndarray] = {}

    def run(orders: list[np.ndarray]) -> Iterator[object]:
        for number, rows in enumerate(orders):
            for n in NAMES:
                key, shape = (number % arrays, n), (len(rows), *maps[n][0].shape[1:])
                if key not in kept or kept[key].shape != shape:
                    kept[key] = np.empty(shape, np.float32)
                for r, step in zip(rows.tolist(), kept[key], strict=True):
                    step[...] = maps[n][r // archive.shard][r % archive.shard]
            yield kept

    return run


def _mapped(archive: Archive, name: str) -> list[np.ndarray]:
    """(T, C, H, W) of each shard file; what is left at its end is the index."""
    shape = archive.root[name].shape[1:]  # type: ignore[index,union-attr]
    count = -(-len(archive.times) // archive.shard)
    files = [archive.path / name / "c" / str(n) / "0/0/0" for n in range(count)]
    steps = [file.stat().st_size // (4 * int(np.prod(shape))) for file in files]
    sizes = ((min(n, archive.shard), *shape) for n in steps)
    return [np.memmap(f, np.float32, "r", shape=s) for f, s in zip(files, sizes, strict=True)]


def loader(archive: Archive, ahead: int = 0, normalised: bool = False) -> Batches:
    """The training loader's batches, as a Trainer gets them or as its device makes them."""
    reader = Reader(archive, world_of(archive))
    states = States(reader, np.arange(len(archive.times)))
    data = states if normalised else Raw(states)
    return lambda orders: iter(AheadLoader(data, ahead=ahead, batch_size=None, sampler=orders))


def xarray_dask(archive: Archive) -> Batches:
    """Rows of the store that xarray opens with dask, computed on one thread."""
    data = xr.open_zarr(archive.path, consolidated=False, chunks={})[list(NAMES)]

    def run(orders: list[np.ndarray]) -> Iterator[object]:
        with dask.config.set(scheduler="synchronous"):
            for rows in orders:
                yield data.isel(time=rows).load()

    return run


def xarray_alone(archive: Archive) -> Batches:
    """The same without dask: zarr's own fancy indexing."""
    data = xr.open_zarr(archive.path, consolidated=False, chunks=None)[list(NAMES)]
    return lambda orders: (data.isel(time=rows).load() for rows in orders)


def xbatches(archive: Archive) -> Batches:
    """Steps by xbatcher, one a sample, put together as a DataLoader does."""
    data = xr.open_zarr(archive.path, consolidated=False, chunks=None)[list(NAMES)]
    sizes = {str(d): n for d, n in data.sizes.items() if d != "time"}
    steps = xbatcher.BatchGenerator(data, {"time": 1, **sizes}, preload_batch=False)

    def run(orders: list[np.ndarray]) -> Iterator[object]:
        for rows in orders:
            samples = [steps[r] for r in rows.tolist()]
            yield [np.concatenate([s[n].values for s in samples]) for n in NAMES]

    return run


def drop_cache() -> None:
    """Let the system forget what it read."""
    Path("/proc/sys/vm/drop_caches").write_text("1")


def timed(run: Batches, orders: list[np.ndarray], cold: bool) -> tuple[float, float]:
    """Samples a second: wall clock, CPU."""
    if cold:
        drop_cache()
    wall, used = time.perf_counter(), time.process_time()
    for _ in run(orders):
        pass
    count = sum(len(rows) for rows in orders)
    return count / (time.perf_counter() - wall), count / (time.process_time() - used)


def private_mib() -> float:
    """MiB of this process's own memory, files not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def compare(archive: Archive, given: argparse.Namespace) -> None:
    """Print the table."""
    runs = {
        "np.memmap": (memmap(archive), 1.0),
        "np.memmap into the same array": (memmap_again(archive), 1.0),
        "np.memmap into two arrays in turn": (memmap_again(archive, 2), 1.0),
        "gapzoo loader": (loader(archive), 1.0),
        "gapzoo loader, reading ahead": (loader(archive, 2), 1.0),
        "gapzoo loader, normalised on the CPU": (loader(archive, 0, True), 0.5),
        "xarray": (xarray_alone(archive), 0.1),
        "xarray + dask": (xarray_dask(archive), 0.1),
        "xbatcher": (xbatches(archive), 0.1),
    }
    rng = np.random.default_rng(1)
    count = min(given.steps, len(archive.times))
    orders = [rng.integers(0, count, given.batch) for _ in range(given.batches)]
    for rows in np.array_split(np.arange(count), 50):
        for name in NAMES:
            archive.read(name, rows)
    best = dict.fromkeys(runs, (0.0, 0.0))
    for _ in range(given.rounds):
        for name, (run, share) in runs.items():
            part = orders[: max(2, int(share * len(orders)))]
            found = timed(run, part, given.cold)
            best[name] = tuple(map(max, best[name], found))  # type: ignore[assignment]
    base = best["np.memmap into the same array"]
    turn = best["np.memmap into two arrays in turn"]
    print(f"{'samples a second':38s}{'wall':>9s}{'CPU':>9s}{'over memmap: wall':>19s}{'CPU':>7s}")
    for name, (wall, used) in best.items():
        over = f"{wall / base[0]:19.3f}{used / base[1]:7.3f}"
        print(f"{name:38s}{wall:9.0f}{used:9.0f}{over}")
    loaded = best["gapzoo loader"]
    print(f"loader over two arrays in turn: {loaded[0] / turn[0]:.3f} of wall, ", end="")
    print(f"{loaded[1] / turn[1]:.3f} of CPU")
    print(f"loader to xarray + dask: {best['gapzoo loader'][0] / best['xarray + dask'][0]:.1f} x")


def memory(archive: Archive, steps: int, batch: int) -> None:
    """Print how private memory grows while every step is read once at random."""
    run = loader(archive, 2)
    order = np.random.default_rng(2).permutation(min(steps, len(archive.times)))
    before, most = private_mib(), 0.0
    for _ in run(np.array_split(order, max(1, len(order) // batch))):
        most = max(most, private_mib())
    shares = (archive.root[n].nbytes / len(archive.times) for n in NAMES)  # type: ignore[union-attr]
    size = len(order) * sum(shares) / 2**20
    print(f"private memory while {size:.0f} MiB are read: {before:.0f}, at most {most:.0f} MiB")


def train(archive: Archive, given: argparse.Namespace, ahead: int, batch: int = 16) -> None:
    """Print how long training steps of the small U-Net take and wait."""
    world = world_of(archive)
    module = UNetDenoiser(
        size="small", channels=len(world.channels), cond_channels=world.cond_channels
    )
    optimiser = torch.optim.AdamW(module.parameters(), 1e-4)
    rng = np.random.default_rng(3)
    count = min(given.steps, len(archive.times))
    orders = [rng.integers(0, count, batch) for _ in range(UNET_STEPS)]
    normaliser, waited, worked = Reader(archive, world).normaliser, [], []
    batches, start = loader(archive, ahead)(orders), time.perf_counter()
    for read in batches:
        there = time.perf_counter()
        ready = normaliser(read)  # type: ignore[arg-type]
        noise = torch.Generator().manual_seed(0)
        loss = module.loss(module.denoiser, ready["state"], noise, cond=ready["cond"]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done = time.perf_counter()
        waited.append(there - start)
        worked.append(done - there)
        start = done
    wait, work = (1e3 * float(np.median(x[1:])) for x in (waited, worked))
    print(f"unet_small, {batch} samples, {ahead} ahead: step {work:.0f} ms, waits {wait:.2f} ms")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--steps", type=int, default=5844, help="of the archive, from its start")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--unet", action="store_true")
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(given.archive or noise_archive(Path(folder) / "noise.zarr"))
        shape = "x".join(map(str, (len(archive.channels), *archive.grid.shape)))
        print(f"{len(archive.times)} steps of {shape}, batches of {given.batch}")
        compare(archive, given)
        memory(archive, given.steps, given.batch)
        if given.unet:
            for ahead in (0, 2):
                train(archive, given, ahead)


if __name__ == "__main__":
    main()
