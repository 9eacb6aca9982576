"""The figures that are of the samples themselves: what they show, how they look, and whether they are copies."""

from __future__ import annotations

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import lpips, perceptual, privacy, semantic
from lightning_diffaug.fidelity.result import Figure
from lightning_diffaug.fidelity.samples import drawn_alike
from lightning_diffaug.fidelity.work import Work
from lightning_diffaug.gates.classifier_fit import FittedClassifier
from lightning_diffaug.gates.nearest import SAME, Neighbours

_COMPARISONS = 50_000_000  # of samples with training samples: a minute or so
_LEAST = 64  # samples that are compared with training samples, however many these are
_TESTED = 10  # real samples on which classifiers are tested, times the samples that are compared


def semantics(work: Work) -> None:
    """By classifiers: one of real data on synthetic samples, and one of synthetic samples on real data."""
    names = ("class_agreement", "trts", "tstr")
    classifier, drawn, level = work.classifier, work.drawn, work.level
    if classifier is None:
        work.absent |= dict.fromkeys(names, work.why_no_classifier)
        return
    if drawn.labels is None or level.labels is None:
        work.absent |= dict.fromkeys(names, "the synthetic or the held-out samples have no labels")
        return
    sizes = (len(drawn), len(level), work.fitted)
    shares = semantic.share_right(classifier, drawn), semantic.share_right(classifier, level)
    recall, real_recall = semantic.mean_recall(classifier, drawn), semantic.mean_recall(classifier, level)
    work.measured["class_agreement"] = Figure(shares[0], shares[1], *sizes)
    work.measured["trts"] = Figure(recall, real_recall, *sizes, note="mean recall of the classes")
    work.add(("tstr",), lambda: _trained_on_synthetic(work, classifier))


def _trained_on_synthetic(work: Work, of_real: FittedClassifier) -> dict[str, Figure]:
    settings = work.settings
    if not settings.train_on_synthetic:
        raise ConfigurationError("train_on_synthetic is off")
    held = work.held.at_most(_TESTED * settings.samples, settings.seed)
    fitted = work.synthetic.at_most(work.fitted, settings.seed)
    of_synthetic = semantic.fitted_on(fitted, work.class_names, work.how_to_classify)
    value, real = semantic.mean_recall(of_synthetic, held), semantic.mean_recall(of_real, held)
    note = (
        f"mean recall of the classes on {len(held)} real samples; trained on {len(fitted)} synthetic, or on "
        f"{work.fitted} real ones"
    )
    return {"tstr": Figure(value, real, len(fitted), work.fitted, note=note)}


def captions(work: Work) -> None:
    """How well samples agree with their captions."""
    model, device, drawn, level = work.settings.caption_model, work.settings.device, work.drawn, work.level

    def agreement() -> dict[str, Figure]:
        if drawn.captions is None:
            raise ConfigurationError("the synthetic samples have no captions")
        if model is None:
            raise ConfigurationError("caption_model is not set: the local folder of a CLIP-like model")
        value = semantic.caption_similarity(drawn, drawn.captions, model, device)
        texts, note = level.captions, ""
        if texts is None and drawn.labels is not None and level.labels is not None:
            # both are in the order of the classes, and equally many of each
            texts, note = drawn.captions, "real: with captions of synthetic samples of their class"
        if texts is None:
            return {"caption_agreement": Figure(value, None, len(drawn), 0, note="real samples have no captions")}
        real = semantic.caption_similarity(level, texts, model, device)
        return {"caption_agreement": Figure(value, real, len(drawn), len(level), note=note)}

    work.add(("caption_agreement",), agreement)


def looks(work: Work) -> None:
    """Spectrum, sharpness and LPIPS."""
    reference, drawn, level = work.reference.values, work.drawn.values, work.level.values
    sizes = (len(drawn), len(level), len(reference))

    def spectrum() -> dict[str, Figure]:
        of_reference = perceptual.radial_power(reference, work.weights)
        value = perceptual.spectrum_distance(of_reference, perceptual.radial_power(drawn))
        real = perceptual.spectrum_distance(of_reference, perceptual.radial_power(level))
        return {"spectrum": Figure(value, real, *sizes)}

    def sharp() -> dict[str, Figure]:
        of_reference = perceptual.sharpness(reference, work.weights)
        if not of_reference:
            raise ConfigurationError("the real samples have no detail at all, so there is nothing to divide by")
        value, real = perceptual.sharpness(drawn) / of_reference, perceptual.sharpness(level) / of_reference
        return {"sharpness": Figure(value, real, *sizes)}

    def distance() -> dict[str, Figure]:
        if work.settings.lpips is None:
            raise ConfigurationError("lpips is not set: a .safetensors file with torchvision's weights of AlexNet")
        by, seed = lpips.lpips_distance(work.settings.lpips), work.settings.seed
        value, pairs = lpips.within_classes(drawn, work.drawn.labels, by, seed)
        real, real_pairs = lpips.within_classes(level, work.level.labels, by, seed)
        return {"lpips": Figure(value, real, pairs, real_pairs, note="n: pairs")}

    for name, make in (("spectrum", spectrum), ("sharpness", sharp), ("lpips", distance)):
        work.add((name,), make)


def copies(work: Work) -> None:
    """How near samples are to training samples, by the distance of the gate ``copy``."""
    training = work.training.values
    n = min(len(work.drawn), max(_LEAST, _COMPARISONS // len(training)))
    drawn, level = drawn_alike(work.drawn, work.level, n, work.settings.seed)
    sizes = (len(drawn), len(level))

    def closer() -> dict[str, Figure]:
        neighbours = Neighbours(lambda rows: training[rows], len(training))
        # a training sample is none of its own neighbours
        of_real, _ = neighbours.distances(level.values, SAME if work.held_is_training else -1.0)
        found = privacy.closer_than_real(neighbours.distances(drawn.values)[0], of_real, work.settings.quantile)
        note = f"than {found.threshold:.3g} (RMS of values in [-1, 1]), as {found.expected:.1%} of real ones are"
        return {"closer_than_real": Figure(found.share, found.expected, *sizes, len(training), p=found.p, note=note)}

    def authentic() -> dict[str, Figure]:
        # with halves among the reference alone, which holds neither the samples nor those of the level
        real = work.reference.values if work.held_is_training else training
        neighbours = Neighbours(lambda rows: real[rows], len(real))
        shares = []
        for values in (drawn.values, level.values):
            apart, nearest = neighbours.distances(values)
            shares.append(privacy.authenticity(apart, neighbours.own(nearest, lambda rows: real[rows])))
        return {"authenticity": Figure(shares[0], shares[1], *sizes, len(real))}

    work.add(("closer_than_real",), closer)
    work.add(("authenticity",), authentic)
