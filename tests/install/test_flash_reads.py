"""A read of flash that fails once, at a boot in each phase: nothing runs on a mixed tree."""

from __future__ import annotations

import pytest

from host_sim.campaigns.powercut.bench import Bench
from host_sim.campaigns.powercut.dimensions import MOST_BOOTS, Dimensions

#: More reads than the boot path makes before main.py runs.
_READS = 400
_STEP = 7


@pytest.fixture(scope="module")
def dimensions():
    with Bench() as bench:
        yield Dimensions(bench)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ESP"])
@pytest.mark.parametrize("phase", ["commit", "mid", "trial", "back", "midback"])
def test_a_read_fails_once(dimensions: Dimensions, phase: str, error: str):
    bench, scenario = dimensions.bench, dimensions.bench.scenarios["few"]
    snapshot = dimensions.phase(scenario, phase)
    assert snapshot
    # The first ones are those of boot.py: all of them. Others by sample.
    for read in (*range(1, 40), *range(40, _READS, _STEP)):
        result = bench.boot(
            scenario,
            snapshot,
            scenario.after_cut,
            fail_read=(read, error),
            max_boots=MOST_BOOTS,
            may_go_on=True,
        )
        mixed = [text for text in result.wrong if text.startswith("after a boot")]
        assert not mixed, f"read {read}: {mixed}"
        assert "boot_limit" not in result.run.names(), f"read {read}"
        wrong = bench.judge_error_end(scenario, bench.finish(scenario, result.after))
        assert not wrong, f"read {read}: {wrong}"
