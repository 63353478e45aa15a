"""The second tab: how learning goes, what there is of each class, and what to look at again."""

from typing import Any

import numpy as np

from bbald_jax.labelling.page.desk import Desk

#: Items shown of each class, of the labels to check, and of each list.
_OF_EACH_CLASS, _TO_CHECK, _LISTED = 8, 12, 30
#: Answers over which it is counted how many the model foresaw.
_WINDOW = 20
#: Points of a curve.
_POINTS = 200


def overview(desk: Desk) -> dict[str, Any]:
    """Everything the tab shows, as JSON has it; items are indices."""
    with desk.notes.lock:
        return _overview(desk)


def _overview(desk: Desk) -> dict[str, Any]:
    session, notes, model = desk.session, desk.notes, desk.learning.model
    notes.follow()
    indices, labels = session.labelled
    num_classes = session.num_classes
    counts = np.bincount(labels, minlength=num_classes)
    confident: list[list[dict[str, Any]]] = [[] for _ in range(num_classes)]
    predicted_counts = np.zeros(num_classes, int)
    if model is not None:
        is_open = np.ones(len(model.probs), bool)
        is_open[indices] = False
        is_open[session.skipped] = False
        best, largest = model.probs.argmax(axis=1), model.probs.max(axis=1)
        predicted_counts[: model.probs.shape[1]] = np.bincount(
            best[is_open], minlength=model.probs.shape[1]
        )
        for number in range(model.probs.shape[1]):
            those = np.flatnonzero(is_open & (best == number))
            order = those[np.argsort(-largest[those], kind="stable")][:_OF_EACH_CLASS]
            confident[number] = [
                {"index": int(point), "probability": float(largest[point])} for point in order
            ]
    hold = dict(zip(indices.tolist(), labels.tolist(), strict=True))
    doubts = {
        told.point: told
        for _, told in notes.foreseen
        if hold.get(told.point) == told.told != told.predicted
    }
    doubtful = sorted(doubts.values(), key=lambda told: told.probability)[:_TO_CHECK]
    return {
        "fitted": None if model is None else model.num_labels,
        "classes": [
            {
                "name": name,
                "labelled": int(counts[number]),
                "predicted": int(predicted_counts[number]),
                "confident": confident[number],
            }
            for number, name in enumerate(session.classes or ())
        ],
        "curve": _curve(desk),
        "accuracy": _accuracy(desk),
        "check": [
            {"index": told.point, "label": told.told, "probability": told.probability}
            for told in doubtful
        ],
        "disagreements": [
            {
                "index": disagreement.point,
                "labels": [[who, label] for who, label in disagreement.labels.items()],
            }
            for disagreement in session.disagreements[:_LISTED]
        ],
        "agreement": _agreement(desk),
        "unsure": [{"index": point} for point in sorted(notes.unsure)[:_LISTED]],
        "skipped": [{"index": point} for point in session.skipped.tolist()[:_LISTED]],
        "people": _people(desk),
    }


def _curve(desk: Desk) -> dict[str, list[tuple[int, float]]]:
    """Three lines against the number of labels, each a list of pairs."""
    fits = {fit.num_labels: fit for fit in desk.notes.fits}
    stable = [(fit.num_labels, fit.agreement) for fit in fits.values() if fit.agreement is not None]
    was_right = [told.predicted == told.told for _, told in desk.notes.foreseen]
    foreseen = [
        (number, float(np.mean(was_right[number - _WINDOW : number])))
        for number in range(_WINDOW, len(was_right) + 1)
    ]
    return {
        "confidence": _thinned([(fit.num_labels, fit.confidence) for fit in fits.values()]),
        "stable": _thinned(stable),
        "foreseen": _thinned(foreseen),
    }


def _accuracy(desk: Desk) -> list[dict[str, Any]]:
    """How the interval of the accuracy has become narrower, for each model that was measured."""
    history = desk.notes.measured
    models = dict.fromkeys(measured.num_labels for measured in history)
    return [
        {
            "num_labels": number,
            "intervals": _every_few(
                [
                    (each.num_audited, each.lower, each.upper)
                    for each in history
                    if each.num_labels == number
                ]
            ),
        }
        for number in models
    ]


def _every_few(rows: list[Any]) -> list[Any]:
    """At most some hundred of them, the last one always."""
    step = -(-len(rows) // _POINTS)
    return [*rows[:-1:step], rows[-1]] if rows else rows


def _thinned(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    pairs = sorted(pairs)
    return pairs[:: -(-len(pairs) // _POINTS)] if pairs else pairs


def _agreement(desk: Desk) -> dict[str, int]:
    """Of all pairs of people's labels for one item, how many are the same."""
    said: dict[int, list[int | None]] = {}
    for answer in desk.session.answers:
        said.setdefault(answer.point, []).append(answer.label)
    pairs = same = 0
    for labels in said.values():
        for place, label in enumerate(labels):
            pairs += place
            same += labels[:place].count(label)
    return {"pairs": pairs, "same": same}


def _people(desk: Desk) -> list[dict[str, Any]]:
    """How many labels each person has given, those that measure too; the most first."""
    counts: dict[str, int] = {}
    drawn = desk.notes.audit.answers.values()
    for name in (answer.annotator or "" for answer in (*desk.session.answers, *drawn)):
        counts[name] = counts.get(name, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "labels": number} for name, number in ordered]
