"""Run independent pieces of work side by side, each on one thread.

On a CPU, networks on small batches gain little from threads inside an operation, and lose a factor of ten when another
program competes for the cores. Whole batches side by side use all cores, do not suffer, and give results that do not
depend on the number of cores. Used for features, folds and synthesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    device: torch.device,
    stop: Callable[[BaseException], None] | None = None,
) -> list[Result]:
    """Return the function's results on all items, in order.

    Parameters
    ----------
    function : callable
        Work on one item; it must not depend on the others.
    items : iterable
        The items.
    device : torch.device
        Where the function computes; only work on a CPU is spread over threads.
    stop : callable, optional
        Takes the first failure, also Ctrl-C, and asks the pieces under way to end; they are then waited for. Without
        it they are left to themselves.

    Returns
    -------
    list
        One result per item.

    Examples
    --------
    >>> side_by_side(lambda k: k * k, [1, 2, 3], torch.device("cpu"))
    [1, 4, 9]
    """
    if device.type != "cpu":
        return [function(item) for item in items]
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(function, items))
    except BaseException as error:
        if stop is not None:
            stop(error)
        raise
    finally:
        pool.shutdown(wait=stop is not None, cancel_futures=True)
        torch.set_num_threads(threads)  # part of the setting is shared by all threads
