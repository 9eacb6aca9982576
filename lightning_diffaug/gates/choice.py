"""Which gates a run has: the defaults, changed by name, or a list of one's own."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.aligned import InSync, MaskAgreement, PairAgreement, ThroughScan
from lightning_diffaug.gates.basic import Finite, InRange, NotBlank
from lightning_diffaug.gates.caption import CaptionAgreement
from lightning_diffaug.gates.chain import ranking
from lightning_diffaug.gates.contamination import NotHeldOut
from lightning_diffaug.gates.copies import NotCopy, Unique
from lightning_diffaug.gates.hard import Hard
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.gates.right_class import RightClass
from lightning_diffaug.gates.safety import Safety
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.spec import SampleSpec

GATES: dict[str, type[Any]] = {
    "finite": Finite,
    "range": InRange,
    "blank": NotBlank,
    "safety": Safety,
    "copy": NotCopy,
    "class": RightClass,
    "caption": CaptionAgreement,
    "mask": MaskAgreement,
    "sync": InSync,
    "chamfer": ThroughScan,
    "pair": PairAgreement,
    "contamination": NotHeldOut,
    "duplicate": Unique,
    "hard": Hard,
}
"""The gates that have a name in the settings, in the order in which samples go through them."""

ON = ("finite", "range", "blank", "copy", "duplicate")
"""Those that are there unless they are turned off: they are against what is wrong, not against what is disliked."""


def chosen_gates(gates: Any, left_out: Sequence[str] = ()) -> list[Any]:
    """The gates of a setting.

    Args:
        gates: None: the defaults. A mapping: the defaults, changed: name → true, false or None, arguments, or a mapping
            with ``_target_`` or an object, which stands under a name of its own at the end of the chain. A sequence:
            just these.
        left_out: Defaults that cannot be had here, unless they are asked for.

    Returns:
        Gates, or their names as mappings with ``_target_``, in order.

    Raises:
        ConfigurationError: A name is unknown, arguments do not fit, or something is no gate.
    """
    if gates is not None and not isinstance(gates, Mapping):
        if isinstance(gates, (str, bytes)) or not isinstance(gates, Sequence):
            raise ConfigurationError(
                f"gates={gates!r} is neither a list of gates nor a mapping of their names. Set gates to e.g. "
                "{class: true}, or data.gates to null."
            )
        for place, gate in enumerate(gates):
            if not _is_own(gate):
                raise ConfigurationError(
                    f"gates[{place}]={gate!r} is no gate. A list holds objects with __call__(samples, condition), or "
                    "{_target_: package.module.Class}; gates by name go into a mapping, such as gates={class: true}."
                )
        return list(gates)
    given = dict(gates or {})
    wanted: dict[str, Any] = {name: name in ON and name not in left_out for name in GATES}
    for name, value in given.items():
        if name not in GATES and (value is None or isinstance(value, (bool, Mapping))) and not _is_own(value):
            near = difflib.get_close_matches(str(name), GATES, n=1)
            hint = f" Did you mean gates.{near[0]}?" if near else ""
            raise ConfigurationError(
                f"gates.{name} is no gate of this library, which has {', '.join(GATES)}.{hint} A gate of your own is "
                f"gates.{name}={{_target_: package.module.Class}}."
            )
        if not (value is None or isinstance(value, (bool, Mapping)) or _is_own(value)):
            raise ConfigurationError(_no_gate(name, value))
        if name in left_out and value is True:  # as the defaults have it; arguments ask for it
            continue
        wanted[name] = value
    made = [_made(name, value) for name, value in wanted.items() if value is not None and value is not False]
    ranking(made)  # says if several choose, before anything is made
    return made


def named_gates(gates: Sequence[Any], spec: SampleSpec, made: SampleSpec) -> list[dict[str, Any]]:
    """The names of gates. Of a field that is given, none judges what was made.

    Args:
        gates: As `chosen_gates` returns them.
        spec: The fields of a sample.
        made: Those that the generator makes.

    Raises:
        ConfigurationError: The generator makes no tensor, and a gate would judge one.
    """
    names = [name_of(gate, "gates") for gate in gates]
    if not spec.continuous or compared_field(spec, None) in made:
        return names
    for name in names:
        gate = build(name, "gates")
        if name.get("field") is not None or not getattr(gate, "judges_made", False):
            continue
        if not made.continuous:
            raise ConfigurationError(
                f"gates.{gate.name} judges a tensor that was made, and this generator makes none: it would find copies "
                f"only, or say nothing of what is new. Set gates.{gate.name}=false."
            )
        name["field"] = compared_field(made, None)
    return names


def _made(name: str, value: Any) -> Any:
    if value is True:
        return GATES[name]()
    if not isinstance(value, Mapping) or "_target_" in value:
        return build(value, f"gates.{name}") if isinstance(value, Mapping) else value
    known = arguments_of(name)
    if unknown := [key for key in value if key not in known]:
        near = difflib.get_close_matches(str(unknown[0]), known, n=1)
        raise ConfigurationError(
            f"gates.{name}={dict(value)}: {unknown[0]} is no argument of it, which has {', '.join(known) or 'none'}."
            + (f" Did you mean {near[0]}?" if near else f" Leave {unknown[0]} out.")
        )
    try:
        return GATES[name](**value)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"gates.{name}={dict(value)} does not fit ({error}). Set gates.{name} to true, false, or its arguments."
        ) from error


def arguments_of(name: str) -> list[str]:
    """What a gate by name may be given; its own name is not among it."""
    return [key for key in inspect.signature(GATES[name]).parameters if key != "name"]


def _is_own(value: Any) -> bool:
    """Whether it is a gate of the user's own, as an object or by its name."""
    return "_target_" in value if isinstance(value, Mapping) else callable(value)


def _no_gate(name: str, value: Any) -> str:
    own = "a gate of your own as {_target_: package.module.Class}"
    if name not in GATES:
        return f"gates.{name}={value!r} is no gate. Set gates.{name} to {own}, or leave it out."
    known = arguments_of(name)
    given = f"a mapping of its arguments ({', '.join(known)}), " if known else ""
    return f"gates.{name}={value!r} is no gate. Set gates.{name} to true, false, {given}or {own}."
