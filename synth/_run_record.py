"""What decides the bytes of the images of a run, and how to say in which of it two runs differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from types import CodeType
from typing import Any

from synth.image_objectives import Custom, Diversity
from synth.jobs import Job
from synth.objectives import Objective, Weighted

_SAID = {
    "model_sha256": "another model",
    "base_sha256": "other base images",
    "functions": "another function of your own (its code has changed)",
}
_OPTIONS = {"slots": "--slots", "amp": "--bf16", "jobs": "targets, --images, --seed or --base", "recipe": "the recipe"}


def functions_sha256(jobs: Iterable[Job]) -> dict[str, str]:
    """Return a hash of the code of every `Custom` function; what the code reads from elsewhere is not seen."""
    found: dict[str, str] = {}
    for objective in {id(job.objective): job.objective for job in jobs}.values():
        for own in _customs(objective):
            code = getattr(own.function, "__code__", None)
            cells = [repr(cell.cell_contents) for cell in getattr(own.function, "__closure__", None) or ()]
            if code is not None:
                found[repr(own)] = hashlib.sha256(repr((_code(code), cells)).encode()).hexdigest()
    return found


def _customs(objective: Objective) -> list[Custom]:
    if isinstance(objective, Weighted):
        return [own for _, term in objective.terms for own in _customs(term)]
    if isinstance(objective, Diversity):
        return _customs(objective.objective)
    return [objective] if isinstance(objective, Custom) else []


def _code(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, without where it stands in its file."""
    held = tuple(_code(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts)
    return code.co_code, held, code.co_names


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return in words what was asked before and what now, or an empty string."""
    for key in {**new, **old}:
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if key in _SAID:
            return f"was started with {_SAID[key]}"
        if key == "recipe":
            was, now = _first_change(_fields(str(was)), _fields(str(now)))
        elif key == "jobs":
            before, after = ([_job(each) for each in jobs or []] for jobs in (was, now))
            alike = len(before) == len(after)
            was, now = _first_change(before, after) if alike else (f"{len(before)} images", str(len(after)))
        option = f" ({_OPTIONS[key]})" if key in _OPTIONS else ""
        name = "" if key in ("jobs", "recipe") else f"{key} "
        return f"was started with {name}{was}, and now it is {now}{option}"
    return ""


def _fields(text: str) -> list[str]:
    return re.split(r", (?=[a-z_0-9]+=)", text)


def _job(job: list[Any]) -> str:
    objective, seed, base = job
    return f"{objective} with seed {seed}" + (f" on {base}" if base else "")


def _first_change(was: list[str], now: list[str]) -> tuple[str, str]:
    return next(((a, b) for a, b in zip(was, now, strict=False) if a != b), (str(was)[:80], str(now)[:80]))
