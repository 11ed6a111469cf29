"""The metadata of a card, which the Hub reads: licence, languages, pipeline, and results as `model-index`."""

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from elmo_hf.hub import markdown as md
from elmo_hf.hub.results import Row


def metadata(
    facts: dict[str, Any],
    perplexities: list[Row],
    evaluations: list[Row],
    pipeline: str | None,
    auto_class: str | None,
) -> ModelCardData:
    """What the Hub reads, with every perplexity and every score of a task."""
    on_the_hub = {md.line(str(name)): entry["id"] for name, entry in facts.get("benchmarks", {}).items()}
    task = pipeline or slug(str(auto_class))
    scores = [score for row in perplexities for score in perplexity_scores(row)]
    scores += [task_score(row, task, on_the_hub) for row in evaluations]
    return ModelCardData(
        language=facts["languages"],
        license=facts["licence"],
        license_name=facts.get("licence_name"),
        license_link=facts.get("licence_link"),
        library_name="transformers",
        pipeline_tag=pipeline if facts["kind"] == "task" else "feature-extraction",
        tags=["elmo", "bilm", *facts.get("tags", [])],
        datasets=facts.get("datasets"),
        base_model=facts.get("base_model"),
        metrics=list(dict.fromkeys(score.metric_type for score in scores)) or None,
        model_name=facts["name"],
        eval_results=scores or None,
    )


def perplexity_scores(row: Row) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="language-modeling",
            task_name="Language modelling, forward and backward",
            dataset_type=slug(row["text"]),
            dataset_name=md.line(row["text"]),
            metric_type="perplexity",
            metric_name=md.line(
                f"perplexity, {direction}, {row.get('states') or 'unknown'} states, full softmax"
            ),
            metric_value=round(row[direction], 3),
        )
        for direction in ("mean", "forward", "backward")
    ]


def task_score(row: Row, task_type: str, on_the_hub: dict[str, str]) -> EvalResult:
    """`on_the_hub`: datasets of the Hub, by their names in the results."""
    return EvalResult(
        task_type=task_type,
        dataset_type=on_the_hub.get(md.line(row["dataset"])) or slug(row["dataset"]),
        dataset_name=md.line(row["dataset"]),
        dataset_split=md.line(row["split"]) if row.get("split") else None,
        metric_type=slug(row["metric"]),
        metric_name=md.line(row["metric"]),
        metric_value=row["value"],
    )


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "text"
