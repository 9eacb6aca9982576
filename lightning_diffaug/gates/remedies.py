"""What it means that a gate rejects much, and what to change: the words of errors over rejected samples."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_diffaug.gates.checks import as_set

_FIT = "generator.fit.steps and generator.fit.lr"
_REMEDIES = {
    "shape": "the generator returns tensors of another shape than the data's: correct its generate()",
    "finite": f"samples hold NaN or infinity: look at the generator's number type and at {_FIT}",
    "range": f"values are outside [-1, 1]: let the generator scale them so, or clip; look at {_FIT}",
    "blank": (
        f"samples show nothing (hardly any contrast): look at {_FIT}, or lower the contrast, "
        f"{as_set('blank', contrast=0.02)}"
    ),
    "safety": "the safety checker flags them: change the prompts, or the threshold of gates.safety",
    "copy": (
        "samples are nearly training samples: the generator repeats what it was fitted on. Lower generator.fit.steps "
        "or generator.fit.channels, raise the strength where it starts from real samples, or lower the ratio, "
        f"{as_set('copy', ratio=0.25)}"
    ),
    "class": (
        "samples are not of the class that was asked for: raise generator.fit.steps or the guidance, or ask for less, "
        f"{as_set('class', confidence=0.3)}"
    ),
    "caption": (
        "samples do not show what their caption says: raise the guidance, or lower contrast and threshold of "
        "gates.caption"
    ),
    "mask": (
        "masks are not those of their images: raise generator.fit.steps, give the mask as a condition, or ask for "
        f"less, {as_set('mask', quantile=0.01)}"
    ),
    "sync": (
        "what is seen and what is heard do not begin together: raise generator.fit.steps, make both streams jointly, "
        f"or raise the tolerance, {as_set('sync', frame_rate='…', sample_rate='…', tolerance=0.2)}"
    ),
    "chamfer": (
        "clouds do not go through their scan: raise generator.fit.steps, give the scan as a condition, or let more "
        f"pass, {as_set('chamfer', quantile=1.0)}"
    ),
    "pair": (
        "fields of a sample do not belong together: raise generator.fit.steps or the guidance, or ask for less, "
        f"{as_set('pair', quantile=0.01)}"
    ),
    "contamination": (
        "samples are nearly validation or test samples: a pretrained model may have seen them. Use another model, or "
        "set gates.contamination=false, which leaves them to be counted"
    ),
    "duplicate": (
        "samples of a slot are nearly equal: the generator makes little variety. Lower the guidance, raise "
        f"generator.num_inference_steps, or lower the ratio, {as_set('duplicate', ratio=0.1)}"
    ),
    "hard": (
        "to the learner they are of another class, more clearly than real samples: let more pass, "
        f"{as_set('hard', plausible=0.99)}"
    ),
}  # fmt: skip


def remedy(reason: str) -> str:
    """What a rejection for `reason` means and what to change.

    Args:
        reason: As rejections are counted: a gate's name, or ``shape: …``.
    """
    name = reason.partition(":")[0]
    return _REMEDIES.get(name, f"gate {name!r} is one of your own: look at what it rejects, or set gates.{name}=false")


def shares(rejections: Mapping[str, int], generated: int) -> str:
    """Which gate rejected how much of the samples made, most first."""
    ordered = sorted(rejections.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {count} ({count / max(generated, 1):.0%})" for reason, count in ordered)


def advice(rejections: Mapping[str, int]) -> str:
    """What the two gates that rejected most are about, and what to change."""
    ordered = sorted(rejections, key=lambda reason: -rejections[reason])
    return " ".join(f"{reason.partition(':')[0]}: {remedy(reason)}." for reason in ordered[:2])
