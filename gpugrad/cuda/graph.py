"""Work captured as a CUDA graph, to be launched again without Python."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

_KERNEL_NODE = 0  # CUgraphNodeType

# Pools of graphs that are gone, of which somebody still has an array.
_left: deque[tuple[Any, Any]] = deque()


class CaptureError(RuntimeError):
    """Work that cannot be captured as a CUDA graph; the message says why."""


class Graph:
    """Captured work, on the memory it was captured with: its temporaries are the graph's own.

    Arrays that the work reads or writes and did not make itself are kept by whoever launches it.

    """

    def __init__(self, device: Any, graph: Any, pool: Any, results: Any) -> None:
        self._device = device
        self._graph = graph
        self._pool = pool
        self._results = [results]
        # Before the graph itself goes: to free memory waits for a launch that is under way.
        weakref.finalize(self, _release, device, pool, self._results).atexit = False

    def launch(self) -> None:
        """Queue the work on the current stream of its device; waits for nothing.

        Launches of one graph never overlap, on whatever streams they are. Where that stream is
        being captured, the work becomes part of that graph, and this one is to be kept with it.
        """
        with self._device:
            self._graph.launch()

    @property
    def results(self) -> Any:
        """What the work returned.

        Arrays it made are in the graph's memory: each launch writes them anew.
        """
        return self._results[0]

    @functools.cached_property
    def kernels(self) -> int | None:
        """How many kernels a launch runs; None where the driver does not tell."""
        found = driver()
        return found and _count_kernels(found, self._graph.graph)

    @property
    def nbytes(self) -> int:
        """The memory that the graph holds, beside arrays that were there before."""
        with self._device:
            return self._pool.total_bytes()


def capture(cp: Any, device: Any, work: Callable[[], Any]) -> Graph:
    """What `work()` queues on `device`, as a graph; nothing of it runs.

    `work` has run before: kernels are compiled, handles of libraries made. It takes and frees
    memory as ever, of a pool of the graph's own: what is freed while it is captured would
    otherwise be given to others while launches still write there.

    Raises:
        CaptureError: if something in `work` cannot be captured (a wait, reading a value, a library
            that refuses), if it raised, or if the current stream is being captured already.
            Stream, allocator and device are then as they were.
    """
    cuda, place = cp.cuda, cp.cuda.Device(device.index)
    pool = cuda.MemoryPool()
    try:
        with place:
            if cuda.get_current_stream().is_capturing():
                raise CaptureError("the current stream is being captured already")
            # non-blocking: else work of others on the default stream would end the capture
            stream = cuda.Stream(non_blocking=True)
            with stream, cuda.using_allocator(pool.malloc):
                graph, results = _captured(cuda, stream, work)
            graph.upload()  # or the first launch would do it
    except BaseException as error:
        _release(place, pool, [])
        if isinstance(error, CaptureError) or not isinstance(error, Exception):
            raise
        reason = str(error).strip() or type(error).__name__
        raise CaptureError(f"this cannot be captured on {device}: {reason}") from error
    return Graph(place, graph, pool, results)


def _captured(cuda: Any, stream: Any, work: Callable[[], Any]) -> tuple[Any, Any]:
    # relaxed: cudaMalloc by the pool, and cudaFree by the garbage collector, are let through.
    # The thread-local mode would end the capture there.
    stream.begin_capture(cuda.runtime.streamCaptureModeRelaxed)
    try:
        results = work()
    except BaseException:
        with contextlib.suppress(Exception):  # the capture may be void already
            stream.end_capture()
        raise
    return stream.end_capture(), results


def _release(device: Any, pool: Any, results: list[Any]) -> None:
    """Give back a graph's memory; that of arrays still in use when the next graph goes."""
    results.clear()
    pools = [(device, pool)]
    with contextlib.suppress(IndexError):  # another thread may take them as well
        while True:
            pools.append(_left.pop())
    for place, held in pools:
        with place:
            held.free_all_blocks()
            if held.total_bytes():
                _left.append((place, held))


def driver() -> Any:
    """The CUDA driver's own library; None where it is not found under its usual name."""
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None


def _count_kernels(driver: Any, graph: int) -> int | None:
    """The kernel nodes of a CUgraph, which is what a cudaGraph_t is too."""
    if not hasattr(driver, "cuGraphGetNodes"):  # an emulated one
        return None
    handle, count = ctypes.c_void_p(graph), ctypes.c_size_t()
    trouble = driver.cuGraphGetNodes(handle, None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    trouble = trouble or driver.cuGraphGetNodes(handle, nodes, ctypes.byref(count))
    kernels = 0
    for node in nodes:
        kind = ctypes.c_int()
        trouble = trouble or driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind))
        kernels += kind.value == _KERNEL_NODE
    return None if trouble else kernels
