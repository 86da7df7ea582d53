"""What a piece of work cost: seconds, energy and CO2, through CodeCarbon, without a network and without files.

Energy is that of the whole machine (of the GPUs that are visible to this process). A processor's or a GPU's own meter
measures; where there is none CodeCarbon estimates, and the cost says so. Metering never stops the work it meters.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

SECONDS_TO_START = 10.0
"""How long work may wait for a meter (about 1.3 s the first time in a process, milliseconds after): a driver that
hangs must not hang the run."""

METERS = {"intel_rapl": "RAPL", "intel_power_gadget": "Intel Power Gadget", "windows_emi": "Windows' energy meter"}
"""CodeCarbon's modes for a processor that are measurements; all others are estimates."""


@dataclass(frozen=True)
class Cost:
    """Seconds; kilowatt-hours and kilograms of CO2-equivalent, None where they were not measured; how they are known.

    Costs of one piece of work that was interrupted add up.
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

    @property
    def kind(self) -> str:
        """A word for a table: measured or estimated, only partly so, or not measured."""
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
    """What one measurement of one model took, over all attempts."""

    measurement: str
    model: str
    """As its files are named: with its seed."""
    cost: Cost
    read: int
    written: int

    @property
    def kwh_per_1000(self) -> float | None:
        """Energy per 1,000 tokens written, the reading of prompts included, or, where none was written, per 1,000 read;
        None where the machine's energy is not known."""
        tokens = self.written or self.read
        return 1000 * self.cost.kwh / tokens if self.cost.kwh is not None and tokens else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; derived figures are there for readers."""
        own = {"measurement": self.measurement, "model": self.model, "tokens_read": self.read}
        figures = {"tokens_written": self.written, "kwh_per_1000_tokens": self.kwh_per_1000, "kind": self.cost.kind}
        return own | figures | self.cost.to_dict()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        cost = Cost.from_dict({name: data[name] for name in ("seconds", "kwh", "kg_co2e", "method")})
        return cls(data["measurement"], data["model"], cost, data["tokens_read"], data["tokens_written"])


class Meter:
    """A running meter; ``cost`` is what was spent up to now, and stays what it was once the work is over."""

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
        """To be read at a checkpoint, so that a run that is killed there still knows its cost; takes milliseconds."""
        return self._over or self._read("flush")

    def _start(self) -> None:
        starter = threading.Thread(target=self._start_tracker, daemon=True, name="potstill-meter")
        starter.start()
        starter.join(SECONDS_TO_START)
        if starter.is_alive():
            self._abandoned.set()
            self._why_not = f"the meter did not start within {SECONDS_TO_START:.0f} s"
        # The meter's own start is no part of the work, and no energy of it was read.
        self._began = time.perf_counter()

    def _start_tracker(self) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker

            # Before the first tracker reads its log level: it greets with two lines on stderr.
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
        except Exception as error:  # noqa: BLE001 — whatever it is, metering never stops the work
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
        except Exception as error:  # noqa: BLE001 — whatever it is, metering never stops the work
            return Cost(seconds, None, None, f"not measured: codecarbon failed ({type(error).__name__}: {error})")


@contextmanager
def measure(country: str | None = None) -> Iterator[Meter]:
    """Meter a block of code: ``with measure() as meter: ...`` and then ``meter.cost``, also when the block raised.

    ``country`` is a three-letter ISO code ("FRA") whose electricity the CO2 is that of; without one, the country of
    CodeCarbon's own settings, as ``CODECARBON_COUNTRY_ISO_CODE`` in the environment or its file `.codecarbon.config`
    give it: where a machine stands is no matter of a recipe. Without these, the world's average. One process of a
    machine should measure, not each rank: the figures are the machine's.
    """
    meter = Meter(country)
    meter._start()
    try:
        yield meter
    finally:
        meter._stop()


class _Readings:
    """What CodeCarbon hands its readings to, in place of a file."""

    last: Any = None

    def out(self, total: Any, delta: Any) -> None:
        self.last = replace(total)

    live_out = out

    def task_out(self, data: Any, experiment_name: str) -> None:
        pass

    def exit(self) -> None:
        pass


def _method(hardware: list[Any], grid: str) -> str:
    """How CodeCarbon came to its figures, for each part of the machine: measured first."""
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
