"""What kind of problem a label stands for, and its classes."""

from dataclasses import dataclass

from components.errors import PipelineStop
from pipeline.adopt.profiling import Column, Value
from pipeline.adopt.request import ProblemType

MOST_CLASSES = 100
MOST_INTEGER_CLASSES = 20
RAREST_INTEGER_CLASS = 0.01
"""Of the rows: integers with a rarer value look like counts, not like classes."""
FEW_ROWS = 10
"""A class with fewer rows is told: the model hardly sees it."""

_OPPOSITES = (
    ("0", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"),
    ("negative", "positive"), ("neg", "pos"), ("bad", "good"), ("fail", "pass"),
    ("inactive", "active"), ("-1", "1"), ("stayed", "left"), ("died", "survived"),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """The problem, and the label's classes in the order of the model's outputs."""

    problem: ProblemType
    classes: tuple[Value, ...] | None
    why: str
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes: 2 for binary, 0 for regression."""
        return {"binary": 2, "regression": 0}.get(self.problem, len(self.classes or ()))


def decide(label: Column, wanted: ProblemType | None) -> Target:
    """The problem type of a label, or the wanted one if the label allows it.

    Raises:
      PipelineStop: the label fits no problem, or not the wanted one.
    """
    problem = wanted or _problem(label)
    if problem == "regression":
        return _regression(label, wanted)
    if problem == "binary":
        return _binary(label)
    return _multiclass(label, wanted)


def _problem(label: Column) -> ProblemType:
    if label.distinct == 2:
        return "binary"
    if label.kind == "BYTES" or _are_class_numbers(label):
        return "multiclass"
    return "regression"


def _are_class_numbers(label: Column) -> bool:
    """Whether numbers look like classes: 0 or 1 upwards without gaps, few, none of them rare."""
    return (
        label.whole
        and label.distinct <= MOST_INTEGER_CLASSES
        and label.low in (0, 1)
        and label.high - label.low + 1 == label.distinct
        and label.frequent[-1][1] >= RAREST_INTEGER_CLASS * label.present
    )


def _regression(label: Column, wanted: ProblemType | None) -> Target:
    if label.kind == "BYTES":
        text = label.frequent[0][0]
        raise PipelineStop(
            f"--problem regression: the label '{label.name}' is text (such as '{text}'), and a "
            "regression needs numbers. Correct the column, or leave --problem out."
        )
    if wanted:
        return Target("regression", None, "asked for with --problem")
    why = f"{label.distinct:,} different numbers from {label.low:g} to {label.high:g}"
    if label.whole and label.distinct <= MOST_INTEGER_CLASSES:
        why += (
            ": numbers with gaps or with rare values look like counts or grades, not like classes "
            "(--problem multiclass overrules)"
        )
    return Target("regression", None, why)


def _binary(label: Column) -> Target:
    if label.distinct != 2:
        raise PipelineStop(
            f"--problem binary: the label '{label.name}' has {label.distinct:,} different values "
            f"({_shown(label)}); a binary label has two. Choose another --problem."
        )
    values = [value for value, _ in label.frequent]
    for negative, positive in _OPPOSITES:
        if {_text(value).strip().lower() for value in values} == {negative, positive}:
            ordered = sorted(values, key=lambda v: _text(v).strip().lower() == positive)
            return _two(label, ordered, "two values; the second is the positive one by its name")
    rarer_last = [value for value, _ in label.frequent]
    return _two(label, rarer_last, "two values; the rarer one is taken as positive. Swap them if "
                "that is wrong")  # fmt: skip


def _two(label: Column, ordered: list[Value], why: str) -> Target:
    if label.kind != "BYTES" and sorted(ordered) == ordered == [0, 1]:
        return Target("binary", None, "the values are 0 and 1", _rare(label))
    return Target("binary", tuple(_as_class(value) for value in ordered), why, _rare(label))


def _multiclass(label: Column, wanted: ProblemType | None) -> Target:
    problems = []
    if label.distinct < 3:
        problems.append("multiclass needs at least three; leave --problem out")
    if label.distinct > MOST_CLASSES:
        problems.append(
            f"more than {MOST_CLASSES} are no classes to learn. Group them, or if they are numbers "
            "use --problem regression"
        )
    if label.kind == "FLOAT" and not label.whole:
        problems.append("classes are texts or whole numbers. Use --problem regression")
    if problems:
        raise PipelineStop(
            f"The label '{label.name}' has {label.distinct:,} different values "
            f"({_shown(label)}): {'; '.join(problems)}."
        )
    values = [value for value, _ in label.frequent]
    classes = tuple(_as_class(value) for value in sorted(values))
    return Target("multiclass", classes, _why_multiclass(label, wanted), _rare(label))


def _why_multiclass(label: Column, wanted: ProblemType | None) -> str:
    if wanted:
        return "asked for with --problem"
    if label.kind == "BYTES":
        return f"{label.distinct} different texts"
    return (
        f"the {label.distinct} whole numbers from {label.low:g} to {label.high:g}, none of them "
        "rare, look like classes (--problem regression if their distances mean something)"
    )


def _rare(label: Column) -> tuple[str, ...]:
    rare = [(value, count) for value, count in label.frequent if count < FEW_ROWS]
    if not rare:
        return ()
    shown = ", ".join(f"{_text(value)} ({count})" for value, count in rare[:5])
    more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
    count = "1 class has" if len(rare) == 1 else f"{len(rare)} classes have"
    return (f"{count} fewer than {FEW_ROWS} rows: {shown}{more}",)


def _as_class(value: Value) -> Value:
    """A class as the configuration has it: whole numbers as integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Value) -> str:
    return str(_as_class(value))


def _shown(label: Column) -> str:
    shown = ", ".join(_text(value)[:30] for value, _ in label.frequent[:5])
    return shown + (", ..." if label.distinct > 5 else "")
