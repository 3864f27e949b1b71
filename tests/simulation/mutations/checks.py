"""Defects around the checks of what agents have done."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from bdauto.controllers import reaper, unchecked_beads
from bdauto.controllers.unchecked_beads import UncheckedBeads
from bdauto.domain import reaping
from bdauto.domain.bead import Bead
from bdauto.domain.reaping import JobEvidence, ReapDecision
from bdauto.domain.settings import ReapSettings
from tests.simulation.mutations.registry import Replacement, mutation

Replaced = Sequence[Replacement]


@mutation("no dispatcher looks at beads that were closed unchecked")
def _no_look() -> Replaced:
    return [Replacement(UncheckedBeads, "in_the_way", lambda *_: ([], []))]


@mutation("an agent that closes its bead counts as a person")
def _agent_is_person() -> Replaced:
    return [Replacement(unchecked_beads, "author", lambda *_: "ann")]


@mutation("what a person has closed is opened again")
def _person_is_agent() -> Replaced:
    return [Replacement(unchecked_beads, "author", lambda *_: None)]


@mutation("a bead is closed though its check failed")
def _closed_unchecked() -> Replaced:
    original = reaping.decide_reap

    def decide(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> ReapDecision:
        ends = {one: msgspec.structs.replace(end, checked=True, why=None) for one, end in evidence.ends.items()}
        return original(bead, msgspec.structs.replace(evidence, ends=ends), settings, now)

    return [Replacement(reaper, "decide_reap", decide)]


@mutation("a failed check charges an attempt")
def _charged() -> Replaced:
    original = reaping.decide_reap

    def decide(bead: Bead, evidence: JobEvidence, settings: ReapSettings, now: datetime) -> ReapDecision:
        decision = original(bead, evidence, settings, now)
        return msgspec.structs.replace(decision, charged=decision.charged or decision.failed_check)

    return [Replacement(reaper, "decide_reap", decide)]
