"""Show: a plan as tables for a terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from potstill.console import duration, size, table
from potstill.planning.advice import Advice, otherwise
from potstill.planning.duration import active_parameters
from potstill.planning.needs import Need, needs_of
from potstill.planning.plan import Plan, StepForecast
from potstill.planning.ranges import Range

UNKNOWN = "?"
MOST_ADVICE = 6


def shown(plan: Plan, advice: Iterable[tuple[Need, Sequence[Advice]]]) -> str:
    """The whole plan: models, text, one row a step, what fits, advice and notes."""
    parts = [
        f"{plan.recipe.about}\non {plan.machine.name}, in {plan.precision}",
        _models(plan),
        _text(plan),
        _steps(plan),
        _fits(plan),
        *(_advice(plan, misfit, found) for misfit, found in advice),
        *([] if not plan.notes else ["\n".join(f"note: {note}" for note in plan.notes)]),
    ]
    return "\n\n".join(part for part in parts if part)


def _models(plan: Plan) -> str:
    rows: list[Sequence[str]] = [("model", "parameters", "body", "head", "embeddings", "trained", "frozen", "active")]
    for one in plan.models:
        sizes = one.parameters
        total = sizes.total + sizes.adapter
        figures = (total, sizes.body, sizes.head, sizes.embeddings, sizes.trained, sizes.frozen, active_parameters(one))
        rows.append((one.name, *(f"{number:,}" for number in figures)))
    return table(rows) if len(rows) > 1 else ""


def _text(plan: Plan) -> str:
    amounts = plan.amounts
    lines = [
        f"samples of an epoch: {_number(amounts.samples)}, with {_number(amounts.tokens)} tokens ({amounts.origin})",
        f"held out: {_number(amounts.held_out_tokens)} tokens",
    ]
    if lost := {what: count for what, count in amounts.lost.items() if count.high}:
        lines.append(f"of the whole text: {'; '.join(f'{_number(count)} {what}' for what, count in lost.items())}")
    for name, share in (amounts.taught or {}).items():
        taught = None if amounts.supervised is None else amounts.supervised * share
        lines.append(f"taught by {name}: {_number(taught)} supervised tokens of an epoch")
    for name, one in plan.schedules.items():
        each = one.micro_batch * one.accumulation
        lines.append(f"{name}: {_number(one.steps)} optimizer steps of {each:,} samples on each device")
    return "\n".join(lines)


def _steps(plan: Plan) -> str:
    on_device, priced = plan.machine.kind == "cuda", plan.machine.price is not None
    columns: list[tuple[str, Callable[[StepForecast], str]]] = [("step", lambda one: one.step)]
    if on_device:
        columns.append(("device memory", lambda one: _size(one.memory.on_device)))
    columns += [
        ("host memory", lambda one: _size(one.memory.on_host)),
        ("disk", lambda one: _size(None if one.disk is None else one.disk.kept)),
        ("disk meanwhile", lambda one: _size(None if one.disk is None else one.disk.meanwhile)),
    ]
    if plan.fetched.high:
        columns.append(("from the hub", lambda one: _size(one.fetched)))
    columns.append(("time", lambda one: _time(one.seconds)))
    if plan.machine.watts is not None:
        columns.append(("energy", lambda one: _energy(one.kwh)))
    if priced:
        columns.append((plan.machine.currency or "", lambda one: _money(one.money)))
    alike: dict[tuple[str, ...], list[StepForecast]] = {}
    for one in plan.steps:
        stage, figures = one.step.partition("/")[0], [show(one) for _, show in columns[1:]]
        alike.setdefault((stage, *figures), []).append(one)
    rows = [[name for name, _ in columns], *([_named(steps), *figures] for (_, *figures), steps in alike.items())]
    return table(rows) + "\n(each step: expected, and in brackets the least and the greatest)"


def _named(steps: Sequence[StepForecast]) -> str:
    """The name of a step, or of several steps of a stage that need the same."""
    first = steps[0].step
    return first if len(steps) == 1 else f"{first} and {len(steps) - 1} more alike"


def _fits(plan: Plan) -> str:
    lines = []
    seconds = plan.seconds
    if seconds is not None:
        lines.append(f"in all: {_time(seconds)}")
    elif plan.steps:
        lines.append(f"in all: {_time(plan.known_seconds)}, and the steps whose time is not known")
    for found, tell in ((plan.sum_of("kwh"), _energy), (plan.sum_of("money"), _money)):
        if found is not None:
            lines[-1] += f", {tell(found)}"
    if plan.machine.currency is not None and plan.sum_of("money") is not None:
        lines[-1] += f" {plan.machine.currency}"
    missing = plan.models.missing
    if missing:
        lines.append(f"memory and time are not known without {', '.join(missing)}: see the notes")
    for need in needs_of(plan):
        if need.step is None:
            lines += _fits_on_disk(plan, need)
        elif not missing:
            lines += _fits_in_memory(plan, need)
    return "\n".join(lines)


def _fits_in_memory(plan: Plan, need: Need) -> Iterator[str]:
    (one,) = (one for one in plan.steps if one.step == need.step)
    trains_there = need.place == "device" or plan.machine.kind == "cpu"
    ranks = f", {plan.ranks.here} processes" if need.place == "host" and plan.ranks.here > 1 else ""
    what = f"{_size(need.needed)} of {size(need.there)} ({need.step}{ranks})"
    yield f"{'memory' if trains_there else 'host memory'}: {what}: {word(need)}"
    if trains_there:
        parts = one.memory.device if need.place == "device" else one.memory.host
        yield f"  {', '.join(f'{name} {size(part.expected)}' for name, part in parts.items() if part.high)}"


def _fits_on_disk(plan: Plan, need: Need) -> Iterator[str]:
    what = "disk" if need.place == "disk" else "disk of the hub's cache"
    yield f"{what}: {_size(need.needed)} of {size(need.there)} free: {word(need)}"
    if plan.fetched.high and (need.place == "cache" or plan.machine.free_cache is None):
        yield f"  {_size(plan.fetched)} of it are weights that come from the hub"


def word(need: Need) -> str:
    """Whether what is needed fits, in words."""
    if need.needed.high <= need.there:
        return "fits"
    if need.needed.low > need.there:
        return "does not fit"
    return "probably fits" if need.needed.expected <= need.there else "probably does not fit"


def _advice(plan: Plan, misfit: Need, found: Sequence[Advice]) -> str:
    if misfit.step is None:
        what = "the disk" if misfit.place == "disk" else "the disk of the hub's cache"
    else:
        what = f"the {'host ' if misfit.place == 'host' else ''}memory of {misfit.step}"
    if not found:
        return f"nothing that a key of the recipe changes makes {what} fit; {otherwise(plan, misfit)}"
    best = sorted(found, key=lambda one: (not one.fits, -one.after.expected if one.fits else one.after.expected))
    lines = [f"to make {what} fit, try:"]
    for one in best[:MOST_ADVICE]:
        sets = " ".join(f"--set '{change}'" for change in one.changes)
        verdict = "fits" if one.fits else "still too much"
        lines.append(f"  {sets}: {one.why}; then {_size(one.after)}, {verdict}")
    if not best[0].fits:
        lines.append(f"  no single one of them is enough: {otherwise(plan, misfit)}")
    return "\n".join(lines)


def _size(found: Range | None) -> str:
    if found is None:
        return UNKNOWN
    return _interval(found, size) if found.high else "–"


def _time(found: Range | None) -> str:
    return UNKNOWN if found is None else _interval(found, duration)


def _energy(found: Range | None) -> str:
    return UNKNOWN if found is None else _interval(found, lambda kwh: f"{kwh:.3g} kWh")


def _money(found: Range | None) -> str:
    return UNKNOWN if found is None else _interval(found, lambda money: f"{money:,.2f}")


def _number(found: Range | None) -> str:
    return UNKNOWN if found is None else _interval(found, lambda number: f"{number:,.0f}")


def _interval(found: Range, show: Callable[[float], str]) -> str:
    low, expected, high = (show(one) for one in found.to_list())
    return expected if low == high else f"{expected} [{low}, {high}]"
