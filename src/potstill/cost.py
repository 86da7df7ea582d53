"""Cost of work in seconds, energy and CO2, metered by CodeCarbon without network and without files.

The energy is that of the whole machine, with the GPUs that are visible to this process. If a processor or GPU has a
meter, its energy is measured; otherwise CodeCarbon estimates it, and the cost says so. A failing meter never stops the
work.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

SECONDS_TO_START = 10.0
"""The longest time that work waits for a meter to start, so that a hanging driver does not hang the run. A start takes
about 1.3 s the first time in a process, and milliseconds after that."""

METERS = {"intel_rapl": "RAPL", "intel_power_gadget": "Intel Power Gadget", "windows_emi": "Windows' energy meter"}
"""CodeCarbon's processor modes that measure; all other modes estimate."""


@dataclass(frozen=True)
class Cost:
    """Seconds; kilowatt-hours and kilograms of CO2-equivalent, None if unknown; and how they were measured.

    The costs of all attempts at one piece of work can be added.
    """

    seconds: float
    kwh: float | None
    kg_co2e: float | None
    method: str

    def __add__(self, other: "Cost") -> "Cost":
        parts = dict.fromkeys([*self.method.split("; "), *other.method.split("; ")])
        return Cost(
            self.seconds + other.seconds,
            _sum(self.kwh, other.kwh),
            _sum(self.kg_co2e, other.kg_co2e),
            "; ".join(parts),
        )

    def share(self, part: float) -> "Cost":
        """A part of the cost, from 0 to 1."""
        kwh, kg = (None if known is None else known * part for known in (self.kwh, self.kg_co2e))
        return Cost(self.seconds * part, kwh, kg, self.method)

    @property
    def kind(self) -> str:
        """A word for tables: "measured", "estimated" or "not measured", with "partly" before a mixture."""
        kinds = {part.split(":")[0] for part in self.method.split("; ")}
        doubts = [kind for kind in ("not measured", "estimated") if kind in kinds]
        if not doubts:
            return "measured" if "measured" in kinds else "not measured"
        return f"partly {doubts[0]}" if len(doubts) > 1 or "measured" in kinds else doubts[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**data)


@dataclass(frozen=True)
class Expense:
    """The cost of one measurement of one model, over all attempts."""

    measurement: str
    model: str
    """The model's name in file names, with its seed."""
    cost: Cost
    read: int
    written: int

    @property
    def kwh_per_1000(self) -> float | None:
        """Energy per 1,000 written tokens, including the energy for reading prompts, or per 1,000 read tokens if none
        was written; None if the energy is unknown."""
        tokens = self.written or self.read
        return 1000 * self.cost.kwh / tokens if self.cost.kwh is not None and tokens else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with derived figures for readers."""
        own = {"measurement": self.measurement, "model": self.model, "tokens_read": self.read}
        figures = {"tokens_written": self.written, "kwh_per_1000_tokens": self.kwh_per_1000, "kind": self.cost.kind}
        return own | figures | self.cost.to_dict()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        cost = Cost.from_dict({name: data[name] for name in ("seconds", "kwh", "kg_co2e", "method")})
        return cls(data["measurement"], data["model"], cost, data["tokens_read"], data["tokens_written"])


class Meter:
    """A running meter. ``cost`` is the cost so far; it no longer changes after the work has ended."""

    def __init__(self, country: str | None) -> None:
        self._country = country
        self._began = time.perf_counter()
        self._tracker: Any = None
        self._readings = _Readings()
        self._over: Cost | None = None
        self._why_not = ""
        self._abandoned = threading.Event()

    @property
    def cost(self) -> Cost:
        """The cost so far, read in milliseconds. Read it at checkpoints, so that a killed run knows its cost."""
        return self._over or self._read("flush")

    def _start(self) -> None:
        starter = threading.Thread(target=self._start_tracker, daemon=True, name="potstill-meter")
        starter.start()
        starter.join(SECONDS_TO_START)
        if starter.is_alive():
            self._abandoned.set()
            self._why_not = f"the meter did not start within {SECONDS_TO_START:.0f} s"
        # The start of the meter does not count as work, and its energy was not read.
        self._began = time.perf_counter()

    def _start_tracker(self) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker

            # Set before the first tracker reads its log level, because a tracker prints two lines on stderr.
            logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
            tracker = OfflineEmissionsTracker(
                **({} if self._country is None else {"country_iso_code": self._country}),
                output_methods=[],
                output_handlers=[self._readings],
                emissions_endpoint=None,
                electricitymaps_api_token=None,
                log_level="critical",
            )
            tracker.start()
            if self._abandoned.is_set():
                tracker.stop()
            else:
                self._tracker = tracker
        except ImportError:
            self._why_not = "codecarbon is not installed"
        except Exception as error:  # noqa: BLE001 — a failing meter never stops the work
            self._why_not = f"codecarbon failed ({type(error).__name__}: {error})"

    def _stop(self) -> None:
        self._over = self._read("stop")

    def _read(self, how: str) -> Cost:
        seconds = time.perf_counter() - self._began
        if self._tracker is None:
            return Cost(seconds, None, None, f"not measured: {self._why_not}")
        try:
            getattr(self._tracker, how)()
            reading = self._readings.last
            if reading is None:
                return Cost(seconds, None, None, "not measured: codecarbon gave no reading")
            method = _method(getattr(self._tracker, "_hardware", []), _grid(reading))
            return Cost(seconds, reading.energy_consumed, reading.emissions, method)
        except Exception as error:  # noqa: BLE001 — a failing meter never stops the work
            return Cost(seconds, None, None, f"not measured: codecarbon failed ({type(error).__name__}: {error})")


@contextmanager
def measure(country: str | None = None) -> Iterator[Meter]:
    """Meter a block of code: ``with measure() as meter: ...``. ``meter.cost`` is set even if the block raises.

    ``country`` is a three-letter ISO code ("FRA"); the CO2 is that of this country's electricity. Without it, the
    country is that of CodeCarbon's own settings (the environment variable ``CODECARBON_COUNTRY_ISO_CODE`` or the file
    `.codecarbon.config`), because a recipe does not know where its machine stands. Without these, the CO2 is that of
    the world's average. Only one process per machine should measure, because the figures are the whole machine's.
    """
    meter = Meter(country)
    meter._start()
    try:
        yield meter
    finally:
        meter._stop()


class _Readings:
    """Receives CodeCarbon's readings in place of a file."""

    last: Any = None

    def out(self, total: Any, delta: Any) -> None:
        self.last = replace(total)

    live_out = out

    def task_out(self, data: Any, experiment_name: str) -> None:
        pass

    def exit(self) -> None:
        pass


def _method(hardware: list[Any], grid: str) -> str:
    """How CodeCarbon got its figures, for each part of the machine; measured parts come first."""
    ways = sorted((_way(part) for part in hardware), key=lambda way: (not way.startswith("measured"), "memory" in way))
    return "; ".join([*dict.fromkeys(ways or ["estimated: in a way this version of CodeCarbon does not tell"]), grid])


def _grid(reading: Any) -> str:
    if not reading.energy_consumed:
        return "CO2e: no energy was read"
    where = reading.country_name or "the world's average grid"
    return f"CO2e: {where}, {1000 * reading.emissions / reading.energy_consumed:.0f} g/kWh"


def _way(part: Any) -> str:
    kind, mode = type(part).__name__, getattr(part, "_mode", None)
    if kind == "GPU":
        return "measured: GPU, by its own meter"
    if kind == "AppleSiliconChip":
        return f"measured: {part.chip_part}, by powermetrics"
    if kind == "Raspberry":
        return f"measured: {part.chip_part}, by the board's own meter"
    if kind == "RAM":
        return "estimated: memory, from its size"
    if mode in METERS:
        return f"measured: CPU, by {METERS[mode]}"
    if mode == "cpu_load":
        return f"estimated: CPU, from its load and a rated power of {part._tdp:.0f} W"
    return "estimated: CPU, from a constant"


def _sum(a: float | None, b: float | None) -> float | None:
    known = [value for value in (a, b) if value is not None]
    return sum(known) if known else None
