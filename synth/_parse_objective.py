"""From the ``repr`` of an objective back to the objective, without running anything in it.

In: text from a table or a manifest, which anybody may have written. Out: an `Objective`. Only the names below are
called, on literals. Called by `objectives.parse_objective`.
"""

from __future__ import annotations

import ast
from typing import Any

from stimuli.hints import did_you_mean
from synth.image_objectives import Custom, Diversity, LayerUnit, MinimalContrast
from synth.objectives import Objective, OneHot, Stretch, Weighted
from synth.site_objectives import Contrast, Pattern, Suppress

_KINDS: dict[str, type[Objective]] = {
    kind.__name__: kind
    for kind in (Stretch, OneHot, Pattern, Suppress, Contrast, LayerUnit, Diversity, MinimalContrast, Custom)
}


def build(text: str) -> Objective:
    """Return the objective, or refuse the text in one sentence."""
    try:
        return _objective(ast.parse(text, mode="eval").body)
    except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError) as error:
        start = repr(text)[:200]  # hostile text can be long
        reason = f": {error}" if isinstance(error, _Refused) else ""
        raise ValueError(f"{start} is not an objective{reason}; expected for example \"Stretch('site00')\"") from error


class _Refused(ValueError):
    """Says what is wrong with a text that can be read."""


def _objective(node: ast.expr) -> Objective:
    summands: list[tuple[float, ast.expr]] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):  # 1,000 sites without recursion
        summands.append((1.0 if isinstance(node.op, ast.Add) else -1.0, node.right))
        node = node.left
    if summands:
        return Weighted(tuple((sign, _objective(part)) for sign, part in ((1.0, node), *reversed(summands))))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight = ast.literal_eval(node.left)
        if type(weight) not in (int, float):
            raise TypeError(f"{weight!r} is not a weight")
        return weight * _objective(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _KINDS:
        if node.func.id == "Diversity" and node.args:  # the one kind that holds an objective
            arguments: list[Any] = [_objective(node.args[0]), *map(ast.literal_eval, node.args[1:])]
        else:
            arguments = [ast.literal_eval(value) for value in node.args]
        named = {str(pair.arg): ast.literal_eval(pair.value) for pair in node.keywords}
        return _KINDS[node.func.id](*arguments, **named)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        raise _Refused(f"{did_you_mean(node.func.id, _KINDS)}known are {', '.join(_KINDS)}")
    raise _Refused("sums, differences and multiples of objectives are understood, and names of sites in quotes")
