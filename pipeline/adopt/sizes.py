"""The network's and the training's sizes, by rows and columns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Settings of `model` and `training` that depend on the data's size."""

    hidden: tuple[int, ...]
    dropout: float
    l2: float
    batch: int
    epochs: int
    learning_rate: float
    evaluate_every_steps: int
    patience: int | None
    """Of early stopping; None: the eval split is too small to say when to stop."""
    why: str


def sizes(rows: int) -> Sizes:
    """The sizes for so many training rows."""
    batch = 32 if rows < 1_000 else 64 if rows < 5_000 else 128 if rows < 50_000 else 512
    steps = max(1, -(-rows // batch))
    if rows < 1_000:
        epochs = max(1, round(600 / steps))
        every, why = (
            max(1, steps * epochs // 10),
            "few rows: a small network, much dropout, no early stopping",
        )
        return Sizes((16,), 0.5, 0.01, batch, epochs, 0.005, every, None, why)
    epochs = max(3, min(60, round(6_000 / steps)))
    every, why = max(10, min(steps, steps * epochs // 40)), "stops when eval's loss no longer falls"
    hidden = (64,) if rows < 5_000 else (64, 32) if rows < 50_000 else (128, 64)
    rate = 0.004 if rows < 5_000 else 0.002
    return Sizes(hidden, 0.3, 0.0, batch, epochs, rate, every, 8, why)
