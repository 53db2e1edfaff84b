"""Loaded by the nannies of a test's cluster: their workers are forked from a process that has imported torch."""

from multiprocessing import get_context

from distributed.utils import get_mp_context

if get_mp_context() is get_context("forkserver"):
    get_context("forkserver").set_forkserver_preload(["distributed", "tests.search.pool_evaluators"])
