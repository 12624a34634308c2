"""Which licence two base models leave for a bridge: known by name, never judged by text.

Ids are those of the Hub (huggingface/hub-docs, docs/hub/repositories-licenses.md). What is said
here is no legal advice: it finds the pairs that a person has to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lavi_bridge.errors import BridgeError, nearest


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FREE = _names(
    """
    afl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
    ecl-2.0 etalab-2.0 isc mit ms-pl ncsa odc-by openmdw-1.0 pddl postgresql unlicense wtfpl
    zlib
    """
)
"""They ask for names and notices; what is made of the work may have any terms."""
TERMS = _names(
    """
    apple-amlr apple-ascl bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m
    c-uda cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 creativeml-openrail-m deepfloyd-if-license
    fair-noncommercial-research-license gemma grok2-community h-research intel-research llama2
    llama3 llama3.1 llama3.2 llama3.3 llama4 openrail openrail++
    """
)
"""They ask that their terms are handed on, and other terms may stand beside them."""
ALIKE = _names(
    """
    agpl-3.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cdla-sharing-1.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
    lgpl-3.0 lgpl-lr lppl-1.3c mpl-2.0 odbl ofl-1.1 osl-3.0
    """
)
"""They ask that what is made of the work has the same licence, with nothing added."""
NOT_CHANGED = _names("cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0")
"""They do not let others publish what is made of the work."""
KNOWN = FREE | TERMS | ALIKE | NOT_CHANGED
WITHOUT_TERMS = frozenset({"cc", "other", "unknown"})
"""Ids of the Hub that say nothing by themselves."""


@dataclass(frozen=True)
class Terms:
    """What a bridge is published under."""

    names: tuple[str, ...]
    """The licences that it has to meet, without those that ask for nothing more."""
    problem: str = ""
    """Why a person has to decide; empty where the names say it all."""
    other: bool = False
    """Whether it is called `other`, whatever the names are."""

    def metadata(self, page: str) -> dict[str, Any]:
        """What the card's head says; `page` is where both licences are named."""
        if not self.other and len(self.names) == 1 and self.names[0] in KNOWN | WITHOUT_TERMS:
            return {"license": self.names[0]}
        plain = (re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-") for name in self.names)
        return {
            "license": "other",
            "license_name": "-and-".join(plain) or "see-the-base-models",
            "license_link": page,
        }


def terms_of(stated: Mapping[str, str | None]) -> Terms:
    """The licence that two base models leave: the stricter of both, or both.

    Args:
        stated: what each model's card says, by the model's id.
    """
    names = tuple(dict.fromkeys(name for name in stated.values() if name))
    strict = tuple(name for name in names if name not in FREE) or names[:1]
    for base, name in stated.items():
        if name is None or name in WITHOUT_TERMS:
            return Terms(strict, f"the licence of '{base}' is not known")
        if name not in KNOWN:
            return Terms(strict, f"'{base}' is under '{name}', whose terms are not known here")
        if name in NOT_CHANGED:
            return Terms(strict, f"'{base}' is under {name}, which lets nobody publish changes")
    if len(strict) > 1 and (alike := [name for name in strict if name in ALIKE]):
        other = next(name for name in strict if name != alike[0])
        return Terms(strict, f"{alike[0]} takes no further terms, and {other} has some")
    return Terms(strict)


def decide(stated: Mapping[str, str | None], given: str | None, *, sure: bool) -> Terms:
    """What the bridge is published under, as its owner says.

    Args:
        given: the owner's choice.
        sure: publish though a person should have read the licences; the owner has.

    Raises:
        BridgeError: the choice is no licence of the Hub; or, unless `sure`, nothing was chosen
            where a person has to, or the choice asks for less than the base models.
    """
    terms = terms_of(stated)
    if given is None:
        if terms.problem and not sure:
            raise BridgeError(
                f"{terms.problem}: read it, then say what you publish under (--licence NAME), or "
                "confirm (--yes)"
            )
        return terms
    if given not in KNOWN | WITHOUT_TERMS:
        known = sorted(KNOWN | WITHOUT_TERMS)
        raise BridgeError(
            f"'{given}' is no licence of the Hub that is known here{nearest(given, known)} "
            "('other' stands for any)"
        )
    if given == "other":
        return replace(terms, other=True)
    less = not terms.problem and terms.names != (given,) and not set(terms.names) <= FREE
    if less and not sure:
        raise BridgeError(
            f"the base models ask for {' and '.join(terms.names)}, not {given}; leave --licence "
            "out, or confirm (--yes)"
        )
    return Terms((given,), terms.problem)
