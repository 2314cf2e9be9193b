"""The model card of an exported edit: what was erased, how, how to load it, and with which measured effect."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from erasebench import __version__
from erasebench.edits.label import UNEDITED
from erasebench.runs.about import read_about
from erasebench.runs.names import TABLES_FOLDER
from erasebench.tables.layout import EMPTY, column_text, title
from erasebench.tables.measured_file import read_measured
from erasebench.texts import escape_markdown

LISTED = 20
"""A card names at most so many concepts, retained texts or layers; ``erasebench.json`` has them all."""

NOT_MEASURED = (
    "**not run**: the effect of this edit on this model has not been measured. To measure it, give the exported "
    "diffusers folder to `erasebench run model=folder model.path=FOLDER method=none`."
)


@dataclass(frozen=True)
class Card:
    """What a card is made from.

    Attributes:
        base: the unedited model: name, source (a Hub id, ``embedded`` or a folder's name), revision, family, dtype.
        pipeline: the class of the pipeline, e.g. ``StableDiffusionPipeline``.
        edits: notes of the edits, the first one applied first.
        how: ``sum`` or ``sequence``, for several edits.
        form: ``lora``, ``diffusers`` or ``delta``.
        names: the changed weights.
        facts: sentences about the files: rank and error, rounding.
        effect: the measured effect, as Markdown.
        warnings: what a reader must know first.
    """

    base: Mapping[str, Any]
    pipeline: str
    edits: Sequence[Mapping[str, Any]]
    form: str
    names: Sequence[str]
    how: str = ""
    facts: Sequence[str] = ()
    effect: str = NOT_MEASURED
    warnings: Sequence[str] = ()


def model_card(card: Card) -> str:
    """The whole ``README.md``: YAML front matter for the Hub, and Markdown in which no name has a meaning."""
    erased = _joined([name for info in card.edits for name in _targets(info)])
    erasers = " and ".join(dict.fromkeys(escape_markdown(str(info.get("method", "an eraser"))) for info in card.edits))
    name = escape_markdown(str(card.base["name"]))
    what = {"lora": "a LoRA for", "diffusers": "a whole copy of", "delta": "the changed weights of"}[card.form]
    sections = [
        f"# {name}, edited to erase {erased}",
        f"This is {what} {name} that {erasers} edited to erase {erased}. "
        f"{_by_what(card.edits)}Made by erasebench {__version__}.",
        *(f"> {escape_markdown(text)}" for text in card.warnings),
        "## What was to be erased",
        "\n".join(_what(info) for info in card.edits),
        "## How",
        _base(card),
        *(_how(info) for info in card.edits),
        "\n".join(f"- {fact}" for fact in (*_where(card), *card.facts)),
        "## How to load it",
        f"```python\n{loading_code(card)}\n```",
        "## Measured effect",
        *_measured(card),
        "## Limits",
        "A concept that no longer answers to its name can still be reached by other words, by images or by further "
        "training."
        + (
            " The numbers above hold for the prompts they were measured on, and for no others; no safety checker is part "
            "of what was measured."
            if card.effect != NOT_MEASURED
            else ""
        )
        + (" No safety checker is in this folder." if card.form == "diffusers" else ""),
    ]
    return f"---\n{_front_matter(card)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _measured(card: Card) -> list[str]:
    """The measured effect, and what exactly it was measured on, where that is not what the reader has at hand."""
    if card.effect == NOT_MEASURED:
        return [card.effect]
    said = [card.effect]
    if len(card.edits) > 1:
        said.append(
            'What is called "unedited" here is the base model, which already carries '
            f"{'the first edit' if len(card.edits) == 2 else f'the first {len(card.edits) - 1} edits'} above; the numbers "
            "say what the last one adds."
        )
    if card.form == "lora":
        said.append("The numbers are those of the edit itself. How near to it this LoRA is stands under How.")
    return said


def _front_matter(card: Card) -> str:
    source = str(card.base["source"])
    hub = "/" in source
    return ModelCardData(
        # Only a Hub id can be linked to; the text names every other base.
        base_model=source if hub else None,
        base_model_relation={"lora": "adapter", "diffusers": "finetune", "delta": None}[card.form] if hub else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["concept-erasure", "erasebench", *(["lora"] if card.form == "lora" else [])]
        + list(dict.fromkeys(str(info.get("method", "")) for info in card.edits if info.get("method"))),
    ).to_yaml()


def _by_what(edits: Sequence[Mapping[str, Any]]) -> str:
    """Whether weights were computed or trained; nothing where an edit of an older version does not say."""
    trained = {info.get("trained") for info in edits}
    if trained == {False}:
        return "New weights were computed and put in place; nothing was trained. "
    if True in trained:
        return "New weights were trained. " if trained == {True} else "Some of the new weights were trained. "
    return ""


def _what(info: Mapping[str, Any]) -> str:
    task = info.get("task", {})
    lines = [f"- {_joined(_targets(info))}, of kind {escape_markdown(str(task.get('kind', 'unknown')))}"]
    phrases = [text for target in task.get("targets", []) for text in target.get("phrases", [])]
    more = [text for text in phrases if text not in _targets(info)]
    if more:
        lines.append(f"  - also asked for as: {_joined(more)}")
    if task.get("retain"):
        lines.append(f"  - to be retained: {_joined([text or 'the empty text' for text in task['retain']])}")
    return "\n".join(lines)


def _base(card: Card) -> str:
    base = card.base
    where = {"embedded": "the small model that erasebench ships"}.get(str(base["source"]))
    where = where or (f"`{_code(base['source'])}`" if "/" in str(base["source"]) else "a local folder")
    return (
        f"Base model: {escape_markdown(str(base['name']))} ({where}), revision `{_code(base['revision'])}`, family "
        f"{escape_markdown(str(base['family']))}, weights read as {escape_markdown(str(base['dtype']))}."
    )


def _how(info: Mapping[str, Any]) -> str:
    version, label = info.get("version", "unknown"), ", ".join(_targets(info))
    lines = [
        f"**{escape_markdown(str(info.get('method', 'an eraser')))}**, version {escape_markdown(str(version))}, for "
        f"{escape_markdown(label)}"
        + (f". {escape_markdown(info['describe'])}" if info.get("describe") else "")
        + ". Its settings:"
    ]
    settings = json.dumps(info.get("settings", {}), indent=2, ensure_ascii=False)
    lines.append(f"```json\n{''.join(c if c.isprintable() or c == chr(10) else ' ' for c in settings)}\n```")
    if isinstance(info.get("share"), float):
        lines.append(
            f"It changes {info.get('weights', 0)} weights, {100 * info['share']:.2f} % of the parameters of the "
            f"parts that hold them, by changes of rank {info.get('rank', 'unknown')} at most"
            + (f"; made in {info['seconds']:.3g} s." if isinstance(info.get("seconds"), int | float) else ".")
        )
    lines += [f"- warning: {escape_markdown(str(text))}" for text in info.get("warnings", [])]
    return "\n\n".join(lines)


def _where(card: Card) -> list[str]:
    kinds = Counter(
        (name.partition(".")[0], ".".join(name.removesuffix(".weight").split(".")[-2:])) for name in card.names
    )
    found = [f"`{_code(part)}` of `{_code(component)}` ({count})" for (component, part), count in kinds.items()]
    more = f" and {len(found) - LISTED} more kinds of layer" if len(found) > LISTED else ""
    facts = [f"Changed weights: {len(card.names)}: {', '.join(found[:LISTED])}{more}. All others are the base model's."]
    if len(card.edits) > 1:
        facts.append(
            {
                "sum": f"The {len(card.edits)} changes, each made for the unedited model, are summed.",
                "sequence": f"The {len(card.edits)} changes are applied in the order above, each to the weights that those before it left.",
                "": "The changes are on top of each other, in the order above.",
            }[card.how]
        )
    return facts


def loading_code(card: Card) -> str:
    """Python that loads the model and draws one image; to be run in the exported folder as it is.

    Where the base is a local folder, its name stands for its path.
    """
    dtype = f"torch.{card.base['dtype']}"
    asked = next((name for info in card.edits for name in _targets(info)), "house")
    lines = ["import torch", f"from diffusers import {card.pipeline}"]
    if card.form == "delta":
        lines.append("from safetensors.torch import load_file")
    source, revision = str(card.base["source"]), str(card.base["revision"])
    folder = 'here = "."  # this folder'
    if card.form == "diffusers":
        lines += ["", folder + ", or its Hub id", f"pipe = {card.pipeline}.from_pretrained(here, torch_dtype={dtype})"]
    else:
        if source == "embedded":
            lines.append("from erasebench.models.load import embedded_folder")
            base = "embedded_folder()"
        elif "/" in source:
            commit, _, variant = revision.partition("+")
            base = f"{_literal(source)}, revision={_literal(commit)}" + (
                f", variant={_literal(variant)}" if variant else ""
            )
        else:
            base = _literal(source)
        lines += ["", folder + (", or its Hub id" if card.form == "lora" else "")]
        lines.append(f"pipe = {card.pipeline}.from_pretrained({base}, torch_dtype={dtype})")
    if card.form == "lora":
        lines.append('pipe.load_lora_weights(here, weight_name="pytorch_lora_weights.safetensors")  # at scale 1')
    if card.form == "delta":
        lines += [
            'for name, tensor in load_file(f"{here}/changed_weights.safetensors").items():',
            '    component, _, rest = name.partition(".")',
            "    getattr(pipe, component).get_parameter(rest).data.copy_(tensor)",
        ]
    lines.append(
        f"image = pipe({_literal(f'a photo of {asked}')}, generator=torch.Generator().manual_seed(0)).images[0]"
    )
    return "\n".join(lines)


def measured_effect(run: Path, eraser: str, kind: str, task: str) -> str:
    """The rows of a finished run's table that speak of one eraser and task, as Markdown, with what they hold for.

    Args:
        run: the run's folder.
        eraser: the eraser's label in the tables.
        kind: kind of the task.
        task: its label.
    """
    try:
        measured = read_measured(run / TABLES_FOLDER)
    except FileNotFoundError:
        return NOT_MEASURED
    part = measured[(measured.task_kind == kind) & (measured.task == task) & (measured.role != "cost")]
    ours = part[part.eraser == eraser]
    if not len(ours):
        return NOT_MEASURED
    unedited = {(row["role"], row["metric"]): row for row in part[part.eraser == UNEDITED].to_dict("records")}
    lines = ["| measured | unedited | edited | difference | n |", "|---|---:|---:|---:|---:|"]
    reasons: dict[str, str] = {}
    for row in ours.to_dict("records"):
        pair = [unedited.get((row["role"], row["metric"])), row]
        before, after = column_text(pair)
        difference = column_text([row], of="difference")[0]
        if row["reason"]:
            reasons.setdefault(row["metric"], row["reason"])
        head = title(row["role"], row["metric"], row["direction"], row["unit"])
        count = f"{int(row['n'])}" if row["n"] == row["n"] and row["n"] > 0 else EMPTY
        lines.append("| " + " | ".join([escape_markdown(head), before, after, difference, count]) + " |")
    about = read_about(run)
    sentences = [
        f"Measured by erasebench in run {run.name}, where {eraser} was to erase {task}",
        *(f"{name}: {text}" for name, text in about.of_kind(kind)),
        "in brackets: 95 % intervals; difference: to the unedited model on the same prompts and seeds (rates in "
        "percentage points); n: images; ↑ and ↓ say which way is better",
        f"metrics {', '.join(name for name in dict.fromkeys(ours.metric) if '@' in name and not name.startswith('H '))}",
        *(f"not run: {metric} ({reason})" for metric, reason in reasons.items()),
    ]
    text = ". ".join(escape_markdown(sentence.rstrip(".")) for sentence in sentences) + "."
    note = f"\n\n**{escape_markdown(about.note)}**" if about.note else ""
    return "\n".join(lines) + f"\n\n{text}{note}"


def _code(text: Any) -> str:
    """A text for a code span: what would end the span is left out."""
    return "".join(c for c in str(text) if c.isprintable() and c not in "`|")


def _literal(text: str) -> str:
    """A Python string on one line of printable characters."""
    return json.dumps("".join(c if c.isprintable() else " " for c in text), ensure_ascii=False)


def _targets(info: Mapping[str, Any]) -> list[str]:
    task = info.get("task", {})
    return [str(target["name"]) for target in task.get("targets", [])] or [str(task.get("label", "a concept"))]


def _joined(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    shown = ", ".join(escape_markdown(name) for name in unique[:LISTED])
    return shown + (f" and {len(unique) - LISTED} more" if len(unique) > LISTED else "")
