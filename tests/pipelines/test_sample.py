"""A sample of a plan: bounded, uniform within a size, and right about corpora whose few large sources are most of the work."""

import numpy as np
import pyarrow as pa

from pipelines.plan import TODO_COLUMNS
from pipelines.sample import TRIED, UNKNOWN, Sample


def sources(sizes: list[int | None], first: int = 0) -> pa.Table:
    """Sources of these sizes; the uri is the number."""
    rows = [{"uri": str(first + k), "modality": "image", "size_bytes": size} for k, size in enumerate(sizes)]
    return pa.Table.from_pylist(rows, schema=TODO_COLUMNS)


def sample_of(sizes: list[int | None], seed: int = 0, batch: int = 1000) -> Sample:
    sample = Sample(seed)
    for first in range(0, len(sizes), batch):
        sample.add(sources(sizes[first : first + batch], first))
    return sample


def mixed(seed: int) -> list[int | None]:
    """10,000 sizes about 100 kB, one in ten about 10 MB."""
    random = np.random.default_rng(seed)
    large = random.random(10_000) < 0.1
    return np.where(large, 1e7 * random.lognormal(0, 0.3, 10_000), 1e5 * random.lognormal(0, 0.3, 10_000)).astype(int).tolist()


def test_everything_is_counted_and_little_is_kept() -> None:
    sizes: list[int | None] = [None, 0, 3, *range(10, 20_010)]
    sample = sample_of(sizes)
    assert sample.sources == len(sizes) and sample.bytes == sum(size or 0 for size in sizes)
    assert sample.classes[UNKNOWN].sources == 2, "neither None nor 0 tells a size"
    assert all(one.kept is not None and one.kept.num_rows <= TRIED for one in sample.classes.values())
    tried = sample.to_try()
    assert sum(rows.num_rows for rows in tried.values()) <= TRIED + 2 * len(tried)
    assert {number: rows.num_rows for number, rows in tried.items()}[UNKNOWN] == 2


def test_of_huge_sources_few_are_kept_as_their_bytes_may_have_come_with_the_corpus() -> None:
    sample = sample_of([10**9] * 500)
    (one,) = sample.classes.values()
    assert one.sources == 500 and one.kept is not None and one.kept.num_rows == 4


def test_every_source_of_a_size_is_as_likely_to_be_kept_wherever_it_is_listed() -> None:
    kept = np.zeros(1000)
    for seed in range(300):
        (one,) = sample_of([1000] * 1000, seed, batch=90).classes.values()
        assert one.kept is not None and one.kept.num_rows == TRIED
        kept[[int(uri) for uri in one.kept["uri"].to_pylist()]] += 1
    by_place = kept.reshape(10, 100).sum(axis=1)  # 300 * 64 / 10 = 1,920 each, with a deviation of 42
    assert np.abs(by_place - 1920).max() < 5 * 42
    twice = [sample_of([1000] * 1000, 7).to_try() for _ in range(2)]
    assert twice[0] == twice[1], "a plan is the same every time"


def test_a_mean_is_right_where_a_tenth_of_the_sources_is_a_hundred_times_larger() -> None:
    def cost(sizes: np.ndarray) -> np.ndarray:
        return 0.001 + 3e-8 * sizes  # seconds to decode

    off, plain_off = [], []
    for seed in range(50):
        sizes = mixed(seed)
        sample, truth = sample_of(sizes, seed), cost(np.array(sizes)).mean()
        tried = {number: np.array(rows["size_bytes"].to_pylist()) for number, rows in sample.to_try().items()}
        off.append(sample.mean({number: float(cost(some).mean()) for number, some in tried.items()}) / truth - 1)
        plain = np.random.default_rng(seed).choice(np.array(sizes), sum(map(len, tried.values())))
        plain_off.append(cost(plain).mean() / truth - 1)
    assert np.abs(off).max() < 0.15 and abs(np.mean(off)) < 0.02, off
    assert np.abs(plain_off).max() > 0.5, "a plain sample of as many is far off now and then"
