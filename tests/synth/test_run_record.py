"""What a run is recognized by when it goes on."""

from __future__ import annotations

from synth import Custom, Diversity, Stretch
from synth._run_record import functions_sha256
from synth.jobs import Job


def hashed(*functions):
    return [functions_sha256([Job(Custom(function, "own"), 0)]) for function in functions]


def test_code_of_a_function_counts_and_its_place_does_not():
    first = lambda responses, images: responses[:, 1] * 3  # noqa: E731

    again = lambda responses, images: responses[:, 1] * 3  # noqa: E731
    other = lambda responses, images: -responses[:, 2]  # noqa: E731
    power = lambda responses, images: responses[:, 1] * 4  # noqa: E731
    (one,), (two,), (three,), (four,) = (found.values() for found in hashed(first, again, other, power))
    assert one == two
    assert len({one, three, four}) == 3


def test_what_a_function_holds_counts():
    def scaled(factor):
        return lambda responses, images: factor * responses[:, 0]

    (two,), (again,), (three,) = (found.values() for found in hashed(scaled(2), scaled(2), scaled(3)))
    assert two == again != three


def test_functions_inside_other_objectives_are_found():
    own = Custom(lambda responses, images: responses[:, 0], "own")
    for objective in (Stretch("a") - 2 * own, Diversity(own, 1.0)):
        assert list(functions_sha256([Job(objective, 0)])) == [repr(own)]
    assert functions_sha256([Job(Stretch("a"), 0)]) == {}
