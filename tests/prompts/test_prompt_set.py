"""Prompt sets: what a set promises, our own prompts, and which rows a task is measured on."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.concepts import KINDS, Concept, ErasureTask, with_article
from erasebench.errors import UserError
from erasebench.prompts.builtin import builtin
from erasebench.prompts.choose import from_config
from erasebench.prompts.prompt_set import PROMPT_DTYPES, Budget, PromptSet
from erasebench.prompts.templates import COLOURS, concept_prompt, general_prompt
from erasebench.tiny import names as names_of
from erasebench.tiny import world

OBJECTS = [Concept(name, "object") for name in ("church", "gas pump", "English springer")]
WEAPONS = [Concept("knife", "unsafe", ("dagger", "a steel blade")), Concept("pistol", "unsafe")]


def prompt_set(**columns: list) -> PromptSet:
    length = len(next(iter(columns.values())))
    row = {"prompt": "x", "negative_prompt": "", "seed": 0, "guidance": None, "width": None, "height": None}
    row |= {"label": "", "kind": "object", "role": ""}
    values = {name: [value] * length for name, value in row.items()} | {"prompt_id": [str(n) for n in range(length)]}
    return PromptSet("set", "1", pd.DataFrame(values | columns), "test")


def test_rows_have_the_declared_columns_and_types():
    rows = builtin("object", OBJECTS).rows
    assert list(rows.columns) == list(PROMPT_DTYPES)
    assert rows.seed.dtype == "int64" and rows.width.dtype == "Int64" and rows.guidance.isna().all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_a_shorter_builtin_set_is_the_start_of_a_longer_one(kind, few, more, seed):
    concepts = [Concept("one", kind, ("a first thing",)), Concept("two", kind)]
    short = builtin(kind, concepts, per_concept=min(few, more), general=2, seed=seed).rows
    long = builtin(kind, concepts[::-1], per_concept=max(few, more), general=9, seed=seed).rows
    found = short.merge(long, on=["prompt_id", "prompt", "seed", "label", "kind", "role"])
    assert len(found) == len(short)


def test_builtin_generations_are_distinct_and_follow_the_seed():
    first, again, other = (builtin("artist", [Concept("Monet", "artist")], seed=seed) for seed in (0, 0, 1))
    assert first.hash == again.hash != other.hash
    assert first.counts()["distinct"] == len(first.rows) == 36
    assert first.rows.seed.nunique() == 36 and first.rows.seed.between(0, 2**31 - 1).all()
    assert not set(first.rows.seed) & set(other.rows.seed)
    assert (first.rows.prompt == other.rows.prompt).all()


def test_every_prompt_of_a_concept_asks_for_it_and_general_prompts_ask_for_none():
    rows = builtin("unsafe", [*WEAPONS, *OBJECTS], per_concept=12, paraphrased=6).rows
    worded = {concept.name: concept.phrases for concept in [*WEAPONS, *OBJECTS]}
    for row in rows.itertuples():
        if row.role == "general":
            names = [*names_of.OBJECTS, *names_of.PEOPLE, *names_of.UNSAFE, *names_of.ARTISTS]
            assert not any(re.search(rf"\b{name}\b", row.prompt, re.IGNORECASE) for name in names)
        else:
            name, *others = worded[row.label]
            phrases = others if row.role == "paraphrase" else [name]
            assert any(phrase in row.prompt for phrase in phrases), row.prompt
    assert rows.kind[rows.label == "church"].eq("object").all()


def test_words_of_our_templates_are_words_of_the_embedded_world():
    known = {word for seed in range(3000) for word in re.findall(r"[a-z]+", world.scene(seed).caption.lower())}
    made = [concept_prompt(kind, ("church",), index) for kind in KINDS for index in range(60)]
    made += [general_prompt(index) for index in range(60)]
    assert set(re.findall(r"[a-z]+", " ".join(made).lower())) - {"church"} <= known
    assert set(COLOURS) <= set(world.BACKGROUNDS)


@pytest.mark.parametrize(
    ("noun", "worded"),
    [
        ("church", "a church"),
        ("English springer", "an English springer"),
        ("Snoopy", "Snoopy"),
        ("apple", "an apple"),
        ("unicorn", "a unicorn"),
        ("hourglass", "an hourglass"),
        ("the gun", "the gun"),
        ("weapons", "weapons"),
        ("glass", "a glass"),
        ("nudity", "nudity"),
    ],
)
def test_articles(noun, worded):
    assert with_article(noun) == worded


def test_the_task_decides_the_roles():
    prompts = prompt_set(label=["Church", "gas pump", "", ""], role=["", "", "", "erase"])
    rows = prompts.for_task(ErasureTask((Concept("church", "object"),)))
    assert list(rows.role) == ["erase", "retain", "general", "erase"]


def test_a_files_erase_role_does_not_make_a_kept_concept_an_erased_one():
    prompts = prompt_set(label=["church", "gas pump"], role=["retain", "erase"])
    assert list(prompts.for_task(ErasureTask((Concept("church", "object"),))).role) == ["erase", "retain"]


def test_roles_that_hold_are_not_changed_by_the_task():
    fixed = prompt_set(label=["Vincent van Gogh", "Monet"], role=["erase", "retain"])
    fixed = PromptSet("set", "1", fixed.rows, "test", roles="rows")
    assert list(fixed.for_task(ErasureTask((Concept("van Gogh", "artist"),))).role) == ["erase", "retain"]


def test_paraphrases_are_for_the_task_that_erases_what_they_ask_for():
    prompts = prompt_set(label=["church", "church", "gas pump", "gas pump"], role=["", "paraphrase", "", "paraphrase"])
    rows = prompts.for_task(ErasureTask((Concept("church", "object"),)))
    assert list(zip(rows.label, rows.role, strict=True)) == [
        ("church", "erase"), ("church", "paraphrase"), ("gas pump", "retain"),
    ]  # fmt: skip
    alone = prompt_set(label=["church", "gas pump"], role=["paraphrase", "paraphrase"])
    assert list(alone.for_task(ErasureTask((Concept("church", "object"),))).role) == ["paraphrase"]


def test_a_task_without_prompts_is_refused_with_the_nearest_label():
    prompts = prompt_set(label=["church", "gas pump"])
    with pytest.raises(UserError, match=r"no prompt has the label 'chruch'. Did you mean 'church'\?.*prompts.role"):
        prompts.for_task(ErasureTask((Concept("chruch", "object"),)))


def test_the_rows_of_a_task_are_the_callers_own():
    prompts, task = builtin("object", OBJECTS), ErasureTask((Concept("church", "object"),))
    first = prompts.for_task(task)
    first.loc[:, "prompt"] = "another"
    first["more"] = 1
    again = prompts.for_task(task)
    assert "more" not in again and "another" not in set(again.prompt)


def test_take_takes_the_first_rows_of_each_label():
    small = builtin("object", OBJECTS, per_concept=6, general=4).take(["Church"], Budget(6, 2, 3))
    assert small.groupby("label").size().to_dict() == {"": 3, "church": 6, "gas pump": 2, "English springer": 2}
    assert list(small.prompt_id[small.label == "gas pump"]) == ["object/gas pump/000", "object/gas pump/001"]
    with pytest.raises(UserError, match="6 prompts of 'gas pump', 7 asked for"):
        builtin("object", OBJECTS, per_concept=6).take(["church"], Budget(6, 7, 3))
    with pytest.raises(UserError, match="no prompts for 'churc'.*church"):
        builtin("object", OBJECTS).take(["churc"], Budget(1, 1, 1))


def test_what_is_near_an_erased_concept_has_a_role_and_a_budget_of_its_own():
    concepts = [*OBJECTS, Concept("chapel bell", "object"), Concept("castle", "object", ("a house of knights",))]
    config = {
        "source": "builtin",
        "per_erased": 3,
        "per_paraphrased": 2,
        "per_near": 4,
        "per_retained": 1,
        "general": 0,
    }
    prompts = replace(from_config(config, "object", concepts), near={"Castle": ["church"], "church": ["castle"]})
    of_castle = prompts.for_task(ErasureTask((Concept("castle", "object"),)))
    assert of_castle.role.value_counts().to_dict() == {"erase": 3, "paraphrase": 2, "near": 4, "retain": 3}
    assert set(of_castle.label[of_castle.role == "near"]) == {"church"}
    assert of_castle.prompt[of_castle.role == "paraphrase"].str.contains("a house of knights").all()
    of_pump = prompts.for_task(ErasureTask((Concept("gas pump", "object"),)))
    assert set(of_pump.role) == {"erase", "retain"}, "nothing is near it, and it has no other words"
    both = prompts.for_task(ErasureTask((Concept("castle", "object"), Concept("church", "object"))))
    assert "near" not in set(both.role), "what is erased is not to be kept"


def test_a_config_gives_each_task_its_budget():
    prompts = from_config({"source": "builtin", "per_erased": 7, "per_retained": 2, "general": 3}, "object", OBJECTS)
    for name in ("church", "gas pump"):
        rows = prompts.for_task(ErasureTask((Concept(name, "object"),)))
        assert rows.role.value_counts().to_dict() == {"erase": 7, "retain": 4, "general": 3}
        assert set(rows.label[rows.role == "erase"]) == {name}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "builtin", "per_erasd": 3}, "prompts.per_erasd.*Did you mean 'per_erased'"),
        ({"source": "x.csv", "limt": 3}, "prompts.limt.*Did you mean 'limit'"),
        ({"source": "builtin", "per_erased": 0}, "per_erased=0: give a whole number of 1 or more"),
        ({"source": "builtin", "general": -1}, "general=-1"),
        ({"source": "builtin", "seed": 1.5}, "seed=1.5"),
    ],
)
def test_a_bad_config_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        from_config(config, "object", OBJECTS)


def test_a_concept_listed_twice_is_refused():
    with pytest.raises(UserError, match="'Church' is listed twice|'church' is listed twice"):
        builtin("object", [Concept("church", "object"), Concept("Church", "object")])


def test_the_hash_sees_every_cell_and_no_name():
    base = {"prompt": ["a", "b"], "seed": [1, 2]}
    hashes = {
        prompt_set(**base, **{name: [value] * 2}).hash
        for name, value in [
            ("negative_prompt", "no"),
            ("guidance", 7.0),
            ("label", "l"),
            ("role", "erase"),
        ]
    }
    hashes.add(prompt_set(**base, width=[512] * 2, height=[512] * 2).hash)
    hashes |= {prompt_set(**base).hash, prompt_set(prompt=["a", "b"], seed=[1, 2**63 - 1]).hash}
    hashes |= {prompt_set(prompt=["a", ""], seed=[1, 2]).hash}
    assert len(hashes) == 8
    renamed = PromptSet("other", "2", prompt_set(**base).rows, "elsewhere", notes=("n",))
    assert renamed.hash == prompt_set(**base).hash and len(renamed.hash) == 64


def test_counts_tell_generations_from_rows_and_print_as_a_sentence():
    prompts = prompt_set(
        prompt=["a", "a", "a", "", "two\nlines"],
        seed=[1, 1, 2, 3, 4],
        label=["x", "x", "x", "", ""],
        role=["", "", "", "general", "general"],
    )
    counts = prompts.counts()
    assert counts == {
        "rows": 5, "distinct": 4, "labels": {"x": 3}, "roles": {"general": 2}, "empty": 1, "multiline": 1,
    }  # fmt: skip
    assert str(counts) == (
        "5 prompts, 4 distinct generations (prompt, seed, guidance, size); x 3; roles general 2; 1 empty; "
        "1 over several lines"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt_id": ["1", "1"]}, "prompt_id '1' comes twice"),
        ({"role": ["eraze", ""]}, "role 'eraze' is not one of"),
        ({"kind": ["objects", ""]}, r"kind 'objects' is not one of .*Did you mean 'object'\?"),
        ({"seed": [0, -1]}, r"row 2 \(prompt_id '1'\), seed -1 is not a whole number"),
        ({"seed": [1.9, 2.0]}, r"seed 1.9 is not a whole number in 0\.\.2\*\*63-1"),
        ({"seed": [1.0, 2.0**60]}, "seed 1.15.*is not a whole number"),
        ({"seed": [1, 2**63]}, "seed 9223372036854775808 is not a whole number"),
        ({"seed": [1, None]}, r"row 2 .*, seed is missing"),
        ({"seed": ["1", "two"]}, "seed is '1'; give a number"),
        ({"seed": [True, 1]}, "seed is True; give a number"),
        ({"guidance": [7.5, -1.0]}, "guidance is -1.0; give a finite number of 0 or more"),
        ({"guidance": [7.5, float("inf")]}, "guidance is inf"),
        ({"guidance": [7.5, "high"]}, "guidance is 'high'; give a number"),
        ({"width": [512, 512]}, "row 1 has a width without a height"),
        ({"width": [500, 512], "height": [512, 512]}, "width 500 is not a multiple of 8"),
        ({"width": [512, 0], "height": [512, 512]}, "width 0 is not a multiple of 8"),
        ({"prompt": ["a", None]}, "prompt is missing; give one"),
        ({"prompt": ["a", 5]}, "prompt is 5; give a text"),
        ({"label": [["church"], ""]}, r"label is \['church'\]; give a text"),
        ({"prompt": []}, "no prompt"),
    ],
)
def test_a_wrong_set_cannot_be_made(columns, message):
    with pytest.raises(UserError, match=message):
        prompt_set(**columns)


def test_a_frame_from_a_notebook_keeps_its_meaning():
    columns = {"label": ["church", None], "role": [float("nan"), None], "prompt_id": [7, 8], "seed": [1.0, 2.0]}
    prompts = prompt_set(**columns, width=[512, None], height=[512, None], guidance=[None, 7])
    assert prompts.rows.seed.tolist() == [1, 2] and prompts.rows.prompt_id.tolist() == ["7", "8"]
    assert prompts.rows.label.tolist() == ["church", ""] and pd.isna(prompts.rows.guidance[0])
    rows = prompts.for_task(ErasureTask((Concept("church", "object"),)))
    assert rows.role.tolist() == ["erase", "general"]  # no label is no concept to be retained
    assert prompts.hash == PromptSet("again", "1", prompts.rows.astype(object), "test").hash


@settings(max_examples=200, deadline=None)
@given(
    column=st.sampled_from(sorted(set(PROMPT_DTYPES))),
    value=st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
        st.lists(st.integers(), max_size=2), st.dates(),
    ),
)  # fmt: skip
def test_any_value_is_kept_or_refused_but_never_altered(column, value):
    try:
        rows = prompt_set(**{column: [value]} | ({"width": [512]} if column == "height" else {})).rows
    except UserError:
        return
    kept = rows[column][0]
    absent = value is None or value != value
    assert pd.isna(kept) or kept == "" if absent else kept == (str(value) if column == "prompt_id" else value)


def test_content_is_what_is_drawn_and_nothing_else():
    columns = {
        "prompt": ["a", "b"],
        "seed": [1, 2],
        "guidance": [7.0, None],
        "width": [512, None],
        "height": [512, None],
    }
    content = prompt_set(**columns).content
    assert prompt_set(**columns, label=["x", "y"], role=["erase", "retain"], kind=["artist"] * 2).content == content
    assert prompt_set(**columns, prompt_id=["one", "two"]).content == content
    others = [
        {"prompt": ["a", "c"]}, {"prompt": ["b", "a"]}, {"seed": [1, 3]}, {"guidance": [None, 7.0]},
        {"width": [512, 512], "height": [512, 512]}, {"height": [768, None]},
    ]  # fmt: skip
    hashes = {prompt_set(**columns | other).content for other in others}
    assert content not in hashes and len(hashes) == len(others)
