"""A layer in the children of `fork`: workers of a DataLoader, a `multiprocessing.Pool`, servers that load a model and fork.

The environment variable `NORMDROP_TASKS` has the number of tasks, 1 unless it is set: more need a library with the feature rayon.
"""

import multiprocessing
import os
import signal

import numpy
import pytest

import normdrop

TASKS = int(os.environ.get("NORMDROP_TASKS", "1"))
# Large enough for a call to be shared by two tasks.
SHAPE = (64, 64, 512)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def trained():
    x = numpy.random.default_rng(0).standard_normal(SHAPE, dtype=numpy.float32)
    layer = normdrop.Layer("NCL", SHAPE, activation="relu", p=0.25, tasks=TASKS)
    y, saved = layer.train(x, mask=layer.mask(7))
    return y.tobytes()


def same(expected):
    # A call that waits for threads of the parent never returns.
    signal.alarm(120)
    found = trained()
    signal.alarm(0)
    return found == expected


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_fork_trains_after_its_parent_has():
    expected = trained()
    child = os.fork()
    if child == 0:
        os._exit(0 if same(expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert trained() == expected


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pool_of_forked_workers_trains_after_its_parent_has():
    expected = trained()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(same, [expected] * 4).get(timeout=300) == [True] * 4
