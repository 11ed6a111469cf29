"""Logistic regression on n-grams, and for pairs of sentences on their overlap."""

from typing import Any

from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import Example

STRENGTHS = (0.03, 0.1, 0.3, 1.0)  # the inverse of the penalty, chosen on dev
NEGATIONS = {
    "no", "not", "n't", "'t", "never", "nothing", "none", "nobody", "neither", "nor", "without", "any",
}  # fmt: skip
MOST_WORDS = 30  # of a side, whose pairs are features


def predict(data: dict[str, list[Example]], pairs: bool) -> tuple[str, dict[str, list[str]]]:
    """What the method is, and the labels of dev and test."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import MaxAbsScaler
    except ImportError:
        raise ElmoError("it needs the package scikit-learn; `pip install 'elmo-hf[tables]'`.") from None
    features = of_pair if pairs else of_text
    counts = CountVectorizer(analyzer=features, min_df=2, binary=True)
    scaler = MaxAbsScaler()
    rows: dict[str, Any] = {"train": scaler.fit_transform(counts.fit_transform(data["train"]))}
    rows |= {split: scaler.transform(counts.transform(data[split])) for split in ("dev", "test")}
    labels = {split: [example["label"] for example in data[split]] for split in rows}
    models = [
        LogisticRegression(C=strength, max_iter=300).fit(rows["train"], labels["train"])
        for strength in STRENGTHS
    ]
    best = max(models, key=lambda model: model.score(rows["dev"], labels["dev"]))
    name = "n-grams, overlap and pairs of words" if pairs else "n-grams of one to three words"
    return f"logistic regression on {name}", {
        split: best.predict(rows[split]).tolist() for split in ("dev", "test")
    }


def of_text(example: Example) -> list[str]:
    words = [word.lower() for word in example["tokens"]]
    return [
        " ".join(words[start : start + size]) for size in (1, 2, 3) for start in range(len(words) - size + 1)
    ]


def of_pair(example: Example) -> list[str]:
    first, second = ([word.lower() for word in side] for side in example["sentences"])
    other = {*first}
    features = [f"h={gram}" for size in (1, 2) for gram in grams(second, size)]
    features += [f"new={word}" for word in second if word not in other]
    for name, share in (("overlap", shared(second, other)), ("covered", shared(first, {*second}))):
        features += [f"{name}>{level}" for level in range(1, 11) if share >= level / 10]
    pairs = grams(second, 2)
    features += [
        f"pairs>{level}" for level in range(1, 11) if shared(pairs, {*grams(first, 2)}) >= level / 10
    ]
    features += [f"longer>{step}" for step in (-20, -10, -5, 0, 3) if len(second) - len(first) > step]
    features.append(f"not={bool({*first} & NEGATIONS)}|{bool({*second} & NEGATIONS)}")
    new = [word for word in second if word not in other][:MOST_WORDS]
    gone = [word for word in first if word not in {*second}][:MOST_WORDS]
    return features + [f"{before}>{after}" for before in gone for after in new]


def grams(words: list[str], size: int) -> list[str]:
    return [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]


def shared(items: list[str], others: set[str]) -> float:
    return sum(item in others for item in items) / max(1, len(items))
