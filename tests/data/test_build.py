"""Building: killed and resumed equals uninterrupted, whatever the number of processes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from worlds import Fault, ToySource, expect, fill

from gapzoo.core import GapzooError
from gapzoo.data import SOURCES
from gapzoo.data import build as building
from gapzoo.data.archive import SHARD, Archive
from gapzoo.data.build import Block, Build

TRAIN = ("1979-01-01", "1979-12-31")


@SOURCES.register("toy_together")
class Together(ToySource):
    """The toy source as one that takes a shard of every segment at a time."""

    def accelerate(self) -> None:
        self.accelerated = True

    def rounds(self, segments, scratch):
        assert self.accelerated, "before anything else is asked of it"
        left = [(s, self.blocks(s, scratch)) for s in segments if s.done(scratch) < s.last]
        while left:
            made = [(segment, next(blocks, None)) for segment, blocks in left]
            yield [Block(segment, *one) for segment, one in made if one]
            left = [pair for pair, (_, one) in zip(left, made, strict=True) if one]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a store but the builder's scratch."""
    found = (p for p in folder.rglob("*") if p.is_file() and ".build" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Built by one process without a stop: four segments of two shards."""
    path = tmp_path_factory.mktemp("whole") / "toy.zarr"
    return Build("toy", {"fault": Fault()}, path, TRAIN).run(workers=1)


def test_a_build_is_what_its_source_gives(whole, tmp_path):
    fill(tmp_path / "plain.zarr", ToySource())
    every = np.arange(731)
    for name in ("state", "forcing"):
        plain = Archive(tmp_path / "plain.zarr").read(name, every)
        assert plain.tobytes() == whole.read(name, every).tobytes()
    assert np.isfinite(whole.array("climatology")).all()


def test_killed_with_one_process_and_resumed_with_two_equals_uninterrupted(whole, tmp_path):
    """Killed in the second shard of a segment, so that its restart point is used."""
    path = tmp_path / "killed.zarr"
    fault = Fault(3, str(tmp_path / "struck"))
    build = Build("toy", {"fault": fault}, path, TRAIN)
    with pytest.raises(RuntimeError, match="killed before shard 3"):
        build.run(workers=1)
    with expect(GapzooError, "never written", "build-data"):
        Archive(path).read("state", np.array([3 * SHARD]))
    with expect(GapzooError, "has no 'mean'"):
        Archive(path).array("mean")
    made = path / "state" / "c" / "2" / "0" / "0" / "0"
    before = made.stat().st_mtime_ns
    done = build.run(workers=2)
    assert made.stat().st_mtime_ns == before, "a shard that was written is not made again"
    assert files(path) == files(whole.path)
    assert done.hash == whole.hash


def test_shards_written_after_the_restart_point_are_made_again_alike(whole, tmp_path):
    """A kill between writing a shard and moving the restart point on."""
    path = shutil.copytree(whole.path, tmp_path / "late.zarr")
    scratch = path / ".build"
    segment = ToySource().segments()[1]
    segment.marker(scratch).write_text("3")
    (scratch / "toy-1.npz").unlink()  # starts the segment again from its first shard
    build = Build("toy", {"fault": Fault()}, path, TRAIN)
    building._work(build, segment, scratch)
    assert files(path) == files(whole.path)


def test_markers_of_an_earlier_version_count_where_what_they_count_is_there(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "old.zarr")
    scratch, segments = path / ".build", ToySource().segments()
    for segment in segments:
        segment.marker(scratch).unlink()
    for number, done in enumerate((2, 3, 6)):
        (scratch / f"segment-{number:04d}.done").write_text(str(done))
    shutil.rmtree(path / "state" / "c" / "4")  # of the third, which says that it is done
    building._adopt(path, scratch, segments)
    assert [segment.done(scratch) for segment in segments] == [2, 3, 4, 6]
    assert len(list(scratch.glob("*.done"))) == 2


def test_built_together_it_is_what_processes_build(whole, tmp_path):
    path = tmp_path / "together.zarr"
    done = Build("toy_together", {}, path, TRAIN).run(together=True)
    assert files(path) == files(whole.path) and done.hash == whole.hash


def test_either_way_of_building_takes_up_what_the_other_left(whole, tmp_path):
    """Killed in the second round; killed in the second shard of the second segment."""
    for first, then in ((True, False), (False, True)):
        path = tmp_path / f"{first}.zarr"
        arguments = {"fault": Fault(3, str(tmp_path / f"struck {first}"))}
        name = "toy_together" if first else "toy"
        with pytest.raises(RuntimeError, match="killed before shard 3"):
            Build(name, arguments, path, TRAIN).run(1, together=first)
        made = path / "state" / "c" / "2" / "0" / "0" / "0"
        before = made.stat().st_mtime_ns
        name = "toy_together" if then else "toy"
        Build(name, arguments, path, TRAIN).run(1, together=then)
        assert made.stat().st_mtime_ns == before, "a shard that was written is not made again"
        assert files(path) == files(whole.path)


def test_together_a_value_that_is_not_finite_names_its_step(tmp_path):
    build = Build("toy_together", {"hole": 130, "end": "1979-12-31"}, tmp_path / "nan.zarr", TRAIN)
    with expect(GapzooError, "source 'toy_together'", "not finite at step 130"):
        build.run(together=True)


def test_a_source_without_batches_is_refused(tmp_path):
    with expect(GapzooError, "source 'toy' has no batches; leave --together out"):
        Build("toy", {}, tmp_path / "x", TRAIN).run(together=True)
    assert not (tmp_path / "x").exists()


def test_without_a_training_period_there_are_no_statistics(tmp_path):
    archive = Build("toy_together", {"end": "1979-04-30"}, tmp_path / "x", None).run(together=True)
    assert "mean" not in archive.root and np.isfinite(archive.read("state", np.arange(120))).all()


def test_a_finished_segment_is_left_alone(whole):
    build = Build("toy", {"fault": Fault(0, "/nonexistent/marker")}, whole.path, TRAIN)
    building._work(build, ToySource().segments()[0], whole.path / ".build")


def test_a_value_that_is_not_finite_names_its_step(tmp_path):
    source = {"hole": 130, "end": "1979-06-30"}
    fill_layout = ToySource(**source)
    build = Build("toy", source, tmp_path / "nan.zarr", TRAIN)
    building.create(build.output, fill_layout.spec())
    with expect(GapzooError, "source 'toy'", "not finite at step 130"):
        building._work(build, fill_layout.segments()[0], tmp_path)
    written = Archive(build.output)
    assert np.isfinite(written.read("state", np.array([119]))).all()
    with expect(GapzooError, "never written"):
        written.read("state", np.array([120]))


def test_a_truth_outside_the_training_years_has_no_statistics(tmp_path):
    """Nor does it need any: it is read with those of the training archive."""
    path = tmp_path / "truth.zarr"
    fill(path, ToySource(end="1979-01-20"))
    archive = Build("toy", {}, path, ("1990-01-01", "1991-01-01"))._finish()
    assert "mean" not in archive.root and len(archive.times) == 20


def test_unknown_sources_and_arguments_are_refused(tmp_path):
    with expect(GapzooError, "no source 'tooy'; did you mean 'toy'?"):
        Build("tooy", {}, tmp_path / "x", TRAIN).run(1)
    with expect(GapzooError, "source 'toy'", "'colour'"):
        Build("toy", {"colour": 1}, tmp_path / "x", TRAIN).run(1)
    assert not (tmp_path / "x").exists()
