"""The results of ``python -m benchmarks.gpu``, read from its file for the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.aims import Measured
from benchmarks.timing import Ratio


@dataclass(frozen=True)
class GpuResults:
    """What was measured on a GPU; nothing by default.

    Args:
        parts: the results of each part, by its name, as ``benchmarks.gpu`` writes them.
    """

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "GpuResults":
        """The results of a run, whole or cut off."""
        return cls(json.loads(file.read_text(encoding="utf-8")))

    @property
    def measured(self) -> list[Measured]:
        """The figures for the aims."""
        figures = [one for part in self._done("section ").values() for one in part["figures"]]
        return [
            Measured(one["aim"], Ratio(one["median"], one["best"]) if "best" in one else one["median"], one["where"])
            for one in figures
        ]

    def markdown(self) -> str:
        """The part of the page about the GPU."""
        if not self.parts:
            return ""
        machine = self.parts["machine"]["result"]
        facts = [f"Machine: {machine['processor']}", f"Versions: {machine['versions']}"]
        laws = {name: law for part in self._done("contract").values() for name, law in part.items()}
        facts += [_contract(laws)] if laws else []
        facts += [
            f"{name[0].upper()}{name[1:]}: {why}"
            for name, part in self.parts.items()
            if (why := part.get("failed") or part.get("cut_off") or part.get("left_out"))
        ]
        blocks = ["## On a GPU", "\n".join(f"- {fact}" for fact in facts)]
        blocks += [table for part in self._done("section ").values() for table in part["tables"]]
        blocks += [_profile(part) for part in self._done("profile").values()]
        return "\n\n".join(blocks)

    def _done(self, prefix: str) -> dict[str, Any]:
        return {
            name: part["result"] for name, part in self.parts.items() if name.startswith(prefix) and "result" in part
        }


def _contract(laws: Mapping[str, Mapping[str, Any]]) -> str:
    broken = [name for name, law in laws.items() if not law["holds"]]
    return f"Contract: {len(laws) - len(broken)} of {len(laws)} laws hold" + (
        f"; broken: {', '.join(broken)}" if broken else ""
    )


def _profile(profile: Mapping[str, Any]) -> str:
    waits: Sequence[str] = [f"`{name}` {count:g}" for name, count in profile["waits_a_step"].items()]
    idle = f" The GPU ran nothing in {profile['idle']:.0%} of this time." if "idle" in profile else ""
    return (
        f"### A training under the profiler, {profile['title']}\n\n"
        f"{profile['tokens_per_second']:,.0f} tokens/s without the profiler; {profile['seconds_a_step'] * 1e3:.0f} ms "
        f"a step under it.{idle} Calls a step that wait for the device, or show that something did: {', '.join(waits)}."
    )
