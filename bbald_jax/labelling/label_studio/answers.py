"""How to bring what a session has of a point up to what people say of it on the server.

One step at a time, each of them one call of the session, until there is none left. What the next
one is follows from the session and the server alone, so it does not matter where it was ended.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from bbald_jax.labelling.events import Opinion
from bbald_jax.labelling.label_studio.tasks import ANNOTATOR, Label
from bbald_jax.labelling.session import Session
from bbald_jax.pool import LABELLED, PENDING, SKIPPED


class Step(NamedTuple):
    """One call of the session.

    Attributes:
      kind: which method; "hold" is `assign` to nobody in particular.
      annotator: who.
      label: of "tell", "correct" and "import".
    """

    kind: Literal["hold", "assign", "tell", "skip", "correct", "undo", "release", "import"]
    annotator: str | None = None
    label: int | None = None


def next_step(labels: Mapping[str, Label], said: Mapping[str | None, Opinion]) -> Step | None:
    """What to do next for a point that has a task on the server.

    Args:
      labels: of each person, as the server has them.
      said: as the session has it; people whose names are not from Label Studio are left alone.

    Returns:
      The step; None where nothing is to be done, or nothing can be.
    """
    for who, opinion in said.items():
        if who is None or not who.startswith(ANNOTATOR):
            continue
        label = labels.get(who)
        if opinion.status == PENDING:
            if who not in labels:
                return Step("release", who)
        elif opinion.status == LABELLED and label is not None:
            if opinion.label != label:
                return Step("correct", who, label)
        # What was imported cannot be undone: it stays.
        elif (opinion.status == LABELLED and opinion.kind != "import") or (
            opinion.status == SKIPPED and (label is not None or who not in labels)
        ):
            return Step("undo", who)
    # First the labels: of a point that is skipped nobody can be given a label.
    for who in sorted(labels, key=lambda who: labels[who] is None):
        label = labels[who]
        if (own := said.get(who)) is not None and own.status != PENDING:
            continue
        answer = Step("skip", who) if label is None else Step("tell", who, label)
        holds = said.get(None)
        if own is not None or (holds is not None and holds.status == PENDING):
            return answer
        is_given_up = said and all(each.status == SKIPPED for each in said.values())
        if not is_given_up:
            return Step("assign", who)
        if label is not None:
            ours = [name for name in said if name is not None and name.startswith(ANNOTATOR)]
            return Step("undo", ours[0]) if ours else Step("import", who, label)
    return None if labels or said else Step("hold")


def take(session: Session, point: int, step: Step) -> None:
    """Do it."""
    who = step.annotator
    match step.kind:
        case "hold":
            session.assign([point])
        case "assign":
            session.assign([point], annotator=who, overlap=True)
        case "tell":
            session.tell([point], [step.label], annotator=who)
        case "skip":
            session.skip([point], annotator=who)
        case "correct":
            assert step.label is not None
            session.correct(point, step.label, annotator=who)
        case "undo":
            session.undo(annotator=who, index=point)
        case "release":
            session.release([point], annotator=who)
        case "import":
            session.import_labels([point], [step.label], annotator=who)
