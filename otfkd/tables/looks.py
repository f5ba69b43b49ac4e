"""One look for a method throughout a page: rows of one config look the same in every table and figure."""

from collections.abc import Mapping, Sequence

from otfkd.reporting.style import Look, many_looks
from otfkd.tables.definition import TableSpec
from otfkd.tables.published import Published

# Of a table's rows, by name.
Looks = Mapping[str, Look]


def page_looks(specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]) -> dict[str, Looks]:
    """The looks of each table's rows, for rows that something is published of.

    Args:
        specs: definitions of the tables, by name, in the order shown.
        profile: at which they were made.
        published: their rows.
    """
    methods = _methods(specs, profile, published)
    each = many_looks(len({*methods.values()}))
    looks: dict[str, dict[str, Look]] = {name: {} for name in specs}
    for (table, row), number in methods.items():
        looks[table][row] = each[number]
    return {**looks}


def same_method(
    specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The rows of other tables that have the same config, by table and row."""
    methods = _methods(specs, profile, published)
    return {
        place: [other for other, number in methods.items() if number == own and other[0] != place[0]]
        for place, own in methods.items()
    }


def _methods(
    specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]
) -> dict[tuple[str, str], int]:
    """Each row's method, numbered as they are first seen; one config is one method, whatever it is called."""
    numbers: dict[tuple[str, bool], int] = {}
    methods: dict[tuple[str, str], int] = {}
    for table, spec in specs.items():
        for row in spec.at(profile):
            # An untrained encoder has the name of the config that would train it.
            own = [one for one in published if (one.table, one.row) == (table, row.name)]
            configs = {(one.hash, one.result.seed is None) for one in own}
            if configs:
                known = [numbers[config] for config in configs if config in numbers]
                number = min(known, default=max(numbers.values(), default=-1) + 1)
                numbers |= dict.fromkeys(configs, number)
                methods[table, row.name] = number
    return methods
