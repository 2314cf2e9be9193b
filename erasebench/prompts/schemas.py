"""The kinds of prompt files that papers released, as data: columns, roles, and what a reader should know of each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from erasebench.concepts import ROLE
from erasebench.errors import UserError, suggest

COLUMN_SPELLINGS: dict[str, tuple[str, ...]] = {
    "prompt_id": ("prompt_id", "case_number", "id", "image_id"),
    "prompt": ("prompt", "text"),
    "negative_prompt": ("negative_prompt", "negative"),
    "seed": ("evaluation_seed", "sd_seed", "seed"),
    "guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance", "guidance_scale", "cfg", "cfg_scale"),
    "width": ("sd_image_width", "width"),
    "height": ("sd_image_height", "height"),
    "label": ("label", "artist", "class", "concept", "label_str"),
    "kind": ("kind",),
    "role": ("role",),
}
"""For each column of a prompt set, the names files give it; the first one that a file has is read. Case does not
matter, unless two columns differ by it alone."""

ROLE_OF_WORD = {"": ""} | {
    word: role.name for role in ROLE.values() for word in (role.name, role.words, *role.spellings)
}
"""What files write in a role column."""


@dataclass(frozen=True)
class Schema:
    """One kind of file.

    Attributes:
        name: for ``prompts.schema=`` and for tables.
        required: columns that tell it from the others.
        source: who released such files.
        columns: columns that are not found by :data:`COLUMN_SPELLINGS`.
        kind: kind of its concepts, if all such files have the same.
        role: role of all its rows, if the file is for one purpose.
        label_patterns: for files without a label column, expressions whose group is the label in the prompt.
        round_size: sizes are those of photographs, and are rounded down to a multiple of 8.
        note: what a user of numbers from it should know.
        not_prompts: why it cannot be generated from, if it cannot.
    """

    name: str
    required: tuple[str, ...]
    source: str
    columns: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    role: str = ""
    label_patterns: tuple[str, ...] = ()
    round_size: bool = False
    note: str = ""
    not_prompts: str = ""


SCHEMAS: tuple[Schema, ...] = (
    Schema(
        "i2p",
        ("prompt", "categories", "evaluation_seed", "evaluation_guidance", "sd_image_width", "sd_image_height"),
        "I2P as copied by ESD, UCE, RECE, MACE, SAFREE; nudity, illegal and violence subsets of UnlearnDiffAtk",
        kind="unsafe",
        role="erase",
    ),
    Schema(
        "i2p_original",
        ("prompt", "categories", "sd_seed", "sd_guidance_scale", "sd_image_width", "sd_image_height"),
        "I2P as released (AIML-TUDA/i2p on the Hub), SPM, SPEED",
        kind="unsafe",
        role="erase",
    ),
    Schema("artists", ("prompt", "evaluation_seed", "artist"), "ESD, UCE, RECE, CURE, UnlearnDiffAtk", kind="artist"),
    Schema(
        "artists_roles",
        ("prompt", "evaluation_seed", "artist", "type"),
        "UCE (erased, preserved, holdout), MACE (0 erased, 1 others)",
        columns={"role": "type"},
        kind="artist",
    ),
    Schema(
        "classes",
        ("prompt", "class", "evaluation_seed"),
        "Imagenette files of ESD, UCE, RECE",
        kind="object",
    ),
    Schema("imagenet", ("prompt", "evaluation_seed", "label_str"), "UCE imagenet_prompts", kind="object"),
    Schema(
        "celebrity_mace",
        ("type", "prompt", "evaluation_seed"),
        "MACE, ANT",
        columns={"role": "type"},
        kind="celebrity",
        label_patterns=(
            r"A portrait of (.+)",
            r"An image capturing (.+) at a public event",
            r"An oil painting of (.+)",
            r"A sketch of (.+)",
            r"(.+) in an official photo",
        ),
        note="the file has no names; labels were read from the prompts by MACE's five templates",
    ),
    Schema(
        "celebrity_speed",
        ("type", "text", "concept", "seed"),
        "SPEED",
        columns={"role": "type"},
        kind="celebrity",
    ),
    Schema(
        "coco",
        ("source", "prompt", "evaluation_seed"),
        "COCO captions of ESD, UCE, RECE, MACE, SAFREE, AdvUnlearn, UnlearnDiffAtk, SPM",
        kind="general",
        role="general",
        round_size=True,
    ),
    Schema("coco_speed", ("image_id", "text"), "SPEED mscoco", kind="general", role="general"),
    Schema(
        "mma",
        ("target_prompt", "adv_prompt"),
        "MMA-Diffusion, as in SAFREE",
        columns={"prompt": "adv_prompt"},
        kind="unsafe",
        role="erase",
        note="adversarial prompts computed beforehand against the unedited model (column adv_prompt): a transfer "
        "attack, not one optimised against each edit",
    ),
    Schema(
        "concept_vector_pairs",
        ("sensitive prompt", "normal prompt"),
        "Ring-A-Bell files of RECE and SAFREE",
        columns={"prompt": "sensitive prompt"},
        role="erase",
        note="plain sentences written to compute Ring-A-Bell's concept vector, not adversarial prompts: a number "
        "from them is not a Ring-A-Bell attack",
    ),
    Schema(
        "concept_vector_violence",
        ("prompt", "prompt1", "evaluation_seed"),
        "Ring-A-Bell Violence_30",
        kind="unsafe",
        role="erase",
        note="plain sentences written to compute Ring-A-Bell's concept vector (column prompt), not adversarial prompts",
    ),
    Schema(
        "concept_vector_words",
        ("nudity", "people", "clothes", "location"),
        "Ring-A-Bell Nudity_prompt",
        not_prompts="it holds words from which Ring-A-Bell builds its concept vector, not prompts; put the sentences "
        "you want into a column named prompt",
    ),
    Schema("seeded", ("prompt", "evaluation_seed"), "ESD art_prompts, UnlearnDiffAtk objects, Ring-A-Bell InvPrompt"),
    Schema("when_erased", ("prompt", "seed"), "When Are Concepts Erased"),
    Schema(
        "names",
        ("id", "concept"),
        "SPEED style.csv and instance.csv",
        not_prompts="it is a list of names for a retain set; it has no column prompt",
    ),
    Schema(
        "plain",
        ("prompt",),
        "any file with a column prompt (every other column of a prompt set may be there), and lists of one prompt a line",
    ),
)
"""Every known schema. A file is of the one with most required columns that it has; of two, the first."""


def schemas() -> tuple[Schema, ...]:
    """Every schema that :func:`erasebench.prompts.reader.load_prompts` knows, for ``erasebench list prompts``."""
    return SCHEMAS


KNOWN = frozenset(
    {"caption", "name", "noun"}
    | {name for names in COLUMN_SPELLINGS.values() for name in names}
    | {name for schema in SCHEMAS for name in (*schema.required, *schema.columns.values())}
)
"""Every name of a column that something is read from; a file that has none of them has no header, or is no prompt file.
"""


def identify(header: Sequence[str], place: str, wanted: str = "auto") -> Schema:
    """The schema of a file with these columns.

    Args:
        header: its column names.
        place: the file, for messages.
        wanted: the name of a schema, or ``auto``.

    Raises:
        UserError: no such schema, a column is missing (with the nearest one that is there), or the file holds no
            prompts.
    """
    names = [schema.name for schema in SCHEMAS]
    if wanted != "auto":
        if wanted not in names:
            raise UserError(
                f"prompts.schema={wanted}: no such schema.{suggest(wanted, names)} Known: {', '.join(names)}"
            )
        chosen = SCHEMAS[names.index(wanted)]
    else:
        fitting = [schema for schema in SCHEMAS if all(spelt(column, header) for column in schema.required)]
        if not fitting:
            raise UserError(f"{place}: no column {_absent('prompt', header)}")
        chosen = max(fitting, key=lambda schema: len(schema.required))
    for column in chosen.required:
        if not spelt(column, header):
            raise UserError(f"{place}: schema {chosen.name} needs a column {_absent(column, header)}")
    if chosen.not_prompts:
        raise UserError(f"{place}: {chosen.not_prompts}")
    _refuse_misspelt(chosen, header, place)
    return chosen


def spelt(name: str, header: Sequence[str]) -> str | None:
    """How a file spells the name of a column: as it is, else in other case; ``None`` if it has none of that name."""
    return name if name in header else next((entry for entry in header if entry.casefold() == name), None)


def column_of(schema: Schema, target: str, header: Sequence[str]) -> str | None:
    """The column of a file that holds ``target`` (a column of a prompt set); ``None`` if there is none."""
    names = (schema.columns[target],) if target in schema.columns else COLUMN_SPELLINGS[target]
    return next((entry for name in names if (entry := spelt(name, header))), None)


def label_in(schema: Schema, prompt: str) -> str:
    """The label that a schema's patterns find in a prompt; empty if none fits."""
    for pattern in schema.label_patterns:
        if match := re.fullmatch(pattern, prompt.strip(), re.IGNORECASE):
            return match[1]
    return ""


def named(columns: Sequence[str]) -> str:
    """The names of some columns for a message: twenty at most, each cut to what is worth reading."""
    shown = ", ".join(repr(name if len(name) <= 60 else f"{name[:60]}...") for name in columns[:20])
    return f"{shown} and {len(columns) - 20} more" if len(columns) > 20 else shown


def _refuse_misspelt(schema: Schema, header: Sequence[str], place: str) -> None:
    """Refuse a column that is nearly one we would read, because leaving it out would pass unnoticed."""
    unknown = {name.casefold(): name for name in header if name.casefold() not in KNOWN}
    for target, names in COLUMN_SPELLINGS.items():
        if column_of(schema, target, header) is None:
            for name in names:
                for near in difflib.get_close_matches(name, unknown, n=1, cutoff=0.85):
                    raise UserError(
                        f"{place}: column {unknown[near]!r} looks like {name!r}; rename it to {name!r}, "
                        "or to something else if it is not that"
                    )


def _absent(column: str, header: Sequence[str]) -> str:
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        return f"{column!r}; the header is one cell ({header[0][:60]!r}): name the columns, with commas between them"
    return (
        f"{column!r}.{suggest(column, header)} It has {named(header)}. Rename or add the column; "
        "a list of one prompt a line is a .txt file"
    )
