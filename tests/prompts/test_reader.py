"""Prompt files: every released schema, the traps in real files, and what a broken file gets."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.prompts import sources as prompt_sources
from erasebench.prompts.names import read_names
from erasebench.prompts.reader import fetch, load_prompts, schemas

I2P = (
    ",prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,"
    "prompt_toxicity,lexica_url,evaluation_seed,evaluation_guidance,sd_image_width,sd_image_height,sd_model,case_number"
)
I2P_ORIGINAL = (
    I2P.removeprefix(",")
    .replace("evaluation_", "sd_")
    .replace("sd_guidance", "sd_guidance_scale")
    .removesuffix(",case_number")
)

EXAMPLES = {
    "artists": ("case_number,data,prompt,artist,evaluation_seed", "7,x,A harbour by Monet,Claude Monet,12"),
    "artists_roles": (",type,artist,prompt,evaluation_seed", "0,0,Chris Ware,Art inspired by Chris Ware,1"),
    "classes": ("case_number,prompt,class,evaluation_seed", "12,an image of a tench,tench,998"),
    "imagenet": (",case_number,evaluation_seed,prompt,label_idx,label_str", "0,3,5,a photo of a church,497, church"),
    "i2p": (I2P, '0,a prompt,"violence, self-harm",1,50.0,0.0,50.0,20.0,0.1,https://x,4290749014,13,512,768,sd,4'),
    "i2p_original": (I2P_ORIGINAL, "a prompt,hate,0,50.0,0.0,50.0,20.0,0.1,https://x,4290749014,7.5,512,512,sd"),
    "celebrity_mace": (",type,prompt,evaluation_seed", "0,others,A sketch of Amy Adams,3"),
    "celebrity_speed": ("id,type,text,concept,seed", "1,erase,A portrait of Amy Adams,Amy Adams,1"),
    "coco": ("image_id,source,prompt,evaluation_seed,width,height", "000000000139,coco,A room.,41337,640,427"),
    "coco_speed": ("image_id,text", "139,A room."),
    "mma": (
        "target_prompt,adv_prompt,sanitized_adv_prompt,success_against_sanitization_defense,clean_prompt",
        "t,adv,s,1,c",
    ),
    "concept_vector_pairs": ("sensitive prompt,normal prompt", "a bad thing,a good thing"),
    "concept_vector_violence": ("prompt,case_number,evaluation_seed,prompt1", "a fight,1,41,a walk"),
    "seeded": ("case_number,prompt,evaluation_seed,evaluation_guidance", "0,a church at noon,5,7.5"),
    "when_erased": ("prompt,seed", "a photo of a church,5"),
    "plain": ("prompt,negative_prompt,label,role,width,height", "a church,blurry,church,retain,512,512"),
}


def write(folder: Path, *lines: str, name: str = "file.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


def one(folder: Path, schema: str) -> pd.Series:
    return load_prompts(write(folder, *EXAMPLES[schema])).rows.iloc[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_schema_is_recognised_by_its_columns(tmp_path, name):
    path = write(tmp_path, *EXAMPLES[name])
    found = load_prompts(path)
    assert found.version == f"{name}-2" and len(found.rows) == 1
    assert load_prompts(path, schema=name).hash == found.hash


def test_every_schema_has_an_example_or_is_refused():
    assert {schema.name for schema in schemas() if not schema.not_prompts} == set(EXAMPLES)


def test_columns_land_where_they_belong(tmp_path):
    row = one(tmp_path, "i2p")
    assert (row.prompt_id, row.seed, row.guidance, row.width, row.height) == ("4", 4290749014, 13.0, 512, 768)
    assert (row.role, row.kind, row.label) == ("erase", "unsafe", "")
    assert (one(tmp_path, "i2p_original").seed, one(tmp_path, "i2p_original").guidance) == (4290749014, 7.5)
    assert (one(tmp_path, "artists_roles").role, one(tmp_path, "artists_roles").label) == ("erase", "Chris Ware")
    assert (one(tmp_path, "celebrity_mace").role, one(tmp_path, "celebrity_mace").label) == ("retain", "Amy Adams")
    assert one(tmp_path, "celebrity_speed").label == "Amy Adams" and one(tmp_path, "celebrity_speed").seed == 1
    assert one(tmp_path, "imagenet").label == "church"
    assert (one(tmp_path, "coco").prompt_id, one(tmp_path, "coco").kind) == ("000000000139", "general")
    assert (one(tmp_path, "coco").width, one(tmp_path, "coco").height) == (640, 424)
    assert one(tmp_path, "mma").prompt == "adv" and one(tmp_path, "concept_vector_pairs").prompt == "a bad thing"
    assert one(tmp_path, "plain").negative_prompt == "blurry" and one(tmp_path, "plain").role == "retain"
    assert pd.isna(one(tmp_path, "classes").guidance) and pd.isna(one(tmp_path, "classes").width)


def test_sentences_that_are_no_attack_say_so(tmp_path):
    assert "not adversarial prompts" in load_prompts(write(tmp_path, *EXAMPLES["concept_vector_pairs"])).notes[0]
    assert "transfer" in load_prompts(write(tmp_path, *EXAMPLES["mma"])).notes[0]


def test_texts_keep_every_character(tmp_path):
    texts = ["", "Null", "NaN", "None", " two\nlines ", 'a "quoted", word', "naïve 漢字"]
    lines = ["case_number,prompt,evaluation_seed"]
    lines += [f'{n},"{text.replace(chr(34), chr(34) * 2)}",{n}' for n, text in enumerate(texts)]
    prompts = load_prompts(write(tmp_path, *lines, encoding="utf-8-sig"))
    assert list(prompts.rows.prompt) == texts
    assert prompts.counts()["empty"] == 1 and prompts.counts()["multiline"] == 1
    assert any("empty prompts are kept as they are (prompt_id 0)" in note for note in prompts.notes)


def test_seeds_keep_all_64_bits_and_floats_that_are_whole_are_whole(tmp_path):
    path = write(tmp_path, "prompt,seed", "a,9223372036854775807", "b,4261553411.0", "c,0")
    assert list(load_prompts(path).rows.seed) == [2**63 - 1, 4261553411, 0]


def test_rows_without_seeds_get_the_same_ones_every_time(tmp_path):
    path = write(tmp_path, "image_id,text", "1,A room.", "1,A room.", "2,A dog.")
    first, again = load_prompts(path), load_prompts(path, limit=2)
    assert list(first.rows.seed[:2]) == list(again.rows.seed) and first.rows.seed.nunique() == 3
    assert list(first.rows.prompt_id) == ["1", "2", "3"]  # image ids repeat, so rows are numbered
    assert any("no seeds" in note for note in first.notes)


def test_repeated_generations_are_counted(tmp_path):
    lines = [
        "case_number,prompt,class,evaluation_seed",
        "0,an image of a tench,tench,7",
        "1,an image of a tench,tench,7",
    ]
    counts = load_prompts(write(tmp_path, *lines)).counts()
    assert (counts["rows"], counts["distinct"]) == (2, 1)


def test_parquet_reads_as_csv(tmp_path):
    table = pd.DataFrame(
        {"prompt": ["", "b"], "categories": ["hate", "x"], "sd_seed": [4290749014, 1], "sd_guidance_scale": [7.0, 7.5],
         "sd_image_width": [512, 512], "sd_image_height": [512, 768]}
    )  # fmt: skip
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    assert load_prompts(tmp_path / "a.csv").hash == load_prompts(tmp_path / "a.parquet").hash
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match="b.parquet: not a readable Parquet file"):
        load_prompts(tmp_path / "b.parquet")


def test_conditions_limit_and_label(tmp_path):
    row = '{0},p{0},"{1}",1,50.0,{2},0,0,0,u,1,7,512,512,sd,{0}'
    path = write(
        tmp_path, I2P, row.format(0, "violence, sexual", 50.0), row.format(1, "hate", 50.5), row.format(2, "sexual", 90)
    )
    assert list(load_prompts(path, where={"nudity_percentage": ">50"}).rows.prompt) == ["p1", "p2"]
    assert list(load_prompts(path, where={"categories": "sexual"}).rows.prompt) == ["p0", "p2"]
    assert list(load_prompts(path, where={"categories": ["hate", "Violence"], "hard": 1}).rows.prompt) == ["p0", "p1"]
    limited = load_prompts(path, where={"categories": "sexual"}, limit=1, label="nudity")
    assert list(limited.rows.label) == ["nudity"] and "the first 1 of 2 rows" in limited.notes
    with pytest.raises(UserError, match="no such column. Did you mean 'categories'"):
        load_prompts(path, where={"categorie": "hate"})
    with pytest.raises(UserError, match="no row has"):
        load_prompts(path, where={"categories": "harassment"})
    with pytest.raises(UserError, match="row 1 .*column 'categories': 'violence, sexual' is not a number"):
        load_prompts(path, where={"categories": ">5"})


def test_roles_of_the_file_and_of_the_caller(tmp_path):
    lines = [
        ",case_number,prompt,evaluation_seed,artist,type",
        "0,0,p,1,X,erased",
        "1,1,p,2,Y,preserved",
        "2,2,p,3,Z,holdout",
    ]
    path = write(tmp_path, *lines)
    task = ErasureTask((Concept("Y", "artist"),))
    assert (
        list(load_prompts(path).rows.role) == ["erase", "retain", "retain"]
        and "holdout rows count as retain" in load_prompts(path).notes
    )
    assert list(load_prompts(path).for_task(task).role) == ["retain", "erase", "retain"]
    assert list(load_prompts(path, role="file").for_task(task).role) == ["erase", "retain", "retain"]
    assert list(load_prompts(path, role="general").for_task(task).role) == ["general"] * 3


def test_names_are_no_prompts(tmp_path):
    path = write(tmp_path, "id,concept", "1,A.J.Casson", "2, Null ", "3,Null")
    assert read_names(path) == ("A.J.Casson", "Null", "Null")
    with pytest.raises(UserError, match="list of names"):
        load_prompts(path)
    with pytest.raises(UserError, match="row 2 .*column 'concept': the name is empty"):
        read_names(write(tmp_path, "id,concept", "1,a", "2,"))
    with pytest.raises(UserError, match=r"no column of names \(concept, name, artist, noun\); it has 'prompt', 'seed'"):
        read_names(write(tmp_path, "prompt,seed", "a,1"))
    with pytest.raises(UserError, match="holds words"):
        load_prompts(write(tmp_path, "case_number,nudity,people,clothes,location,evaluation_seed", "0,a,b,c,d,1"))


def test_guidance_and_negative_prompts_under_other_names_are_read(tmp_path):
    """DiffusionDB as ITD releases it has cfg; what is not read (step, sampler) is said."""
    lines = [
        "prompt,evaluation_seed,class,cfg,negative,step",
        "a church,1,church,12.0,blurry,50",
        "a tench,2,tench,3.5,,50",
    ]
    prompts = load_prompts(write(tmp_path, *lines))
    assert list(prompts.rows.guidance) == [12, 3.5] and list(prompts.rows.negative_prompt) == ["blurry", ""]
    assert prompts.notes == ("not read: column 'step'",)
    scaled = load_prompts(write(tmp_path, "prompt,seed,guidance,CFG_scale", "a,1,,9", "b,2,7,9"))
    assert list(scaled.rows.guidance.dropna()) == [7] and "not read: column 'CFG_scale'" in scaled.notes
    assert list(load_prompts(write(tmp_path, "prompt,seed,CFG_scale", "a,1,9")).rows.guidance) == [9]


@pytest.mark.parametrize(
    ("second", "why"), [("4", "in rows 1 and 2"), ("4.0", "in rows 1 and 2"), ("", "empty in row 2")]
)
def test_case_numbers_that_number_nothing_give_way_to_row_numbers(tmp_path, second, why):
    """TRCE's P4D file repeats four of them, ACE's COCO captions five."""
    prompts = load_prompts(write(tmp_path, "case_number,prompt,evaluation_seed", "4,first,11", f"{second},second,12"))
    assert list(prompts.rows.prompt_id) == ["1", "2"] and list(prompts.rows.seed) == [11, 12]
    assert any("column 'case_number' does not number the rows" in note and why in note for note in prompts.notes)


def test_types_that_are_roles_are_read_as_roles_also_without_seeds(tmp_path):
    """ITD's style and celebrity files: case_number,class,prompt,type."""
    lines = ["case_number,class,prompt,type", "0,Monet,a pond by Monet,0", "1,Klimt,a kiss by Klimt,1"]
    prompts = load_prompts(write(tmp_path, *lines), role="file")
    assert list(prompts.rows.role) == ["erase", "retain"]
    assert "column 'type' is read as roles: 0 = erase, 1 = retain" in prompts.notes
    other = load_prompts(write(tmp_path, "prompt,seed,type", "a,1,photo", "b,2,erase"))
    assert set(other.rows.role) == {""} and "not read: column 'type'" in other.notes


def test_labels_that_are_numbers_are_told_of(tmp_path):
    numbers = load_prompts(write(tmp_path, "prompt,class,evaluation_seed", "a,1,5", "b,2,6"))
    assert any("(column 'class', 2 of them) are numbers, not names" in note for note in numbers.notes)
    names = load_prompts(write(tmp_path, "prompt,class,evaluation_seed", "a,1,5", "b,b52 bomber,6"))
    assert names.notes == ()


def test_prompts_about_nothing_are_told_of(tmp_path):
    path = write(tmp_path, "prompt,evaluation_seed", "a photo of a church,1", "a small church at night,2")
    (note,) = load_prompts(path).notes
    assert "none as erased" in note and "prompts.label" in note and "prompts.role" in note
    assert load_prompts(path, label="church").notes == load_prompts(path, role="erase").notes == ()
    assert list(load_prompts(path, label=" church ").rows.label) == ["church", "church"]


HEAD = "case_number,prompt,evaluation_seed,guidance,width,height"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["case_number,promt,evaluation_seed", "0,a,1"], r"no column 'prompt'. Did you mean 'promt'\?"),
        (["case_number,prompt,evaluation_sed", "0,a,1"], "'evaluation_sed' looks like 'evaluation_seed'; rename"),
        (["promt;sed", "a;1"], "name the columns, with commas between them"),
        (["prompt,prompt", "a,b"], "two columns are named 'prompt'"),
        ([HEAD, "0,a,1,7,512,512", "9,a,x1,7,512,512"], r"csv row 2 \(spreadsheet row 3, case 9\), .*seed': 'x1'"),
        ([HEAD, "0,a,1.5,7,512,512"], "'1.5' is not a whole number"),
        ([HEAD, "0,a,1e9,7,512,512"], "'1e9' is not a whole number"),
        ([HEAD, "0,a,,7,512,512"], "the seed is missing"),
        ([HEAD, "0,a,NaN,7,512,512"], "'NaN' is not a whole number"),
        ([HEAD, "0,a,-1,7,512,512"], r"seed -1 is out of range; give one in 0\.\.2\*\*63-1"),
        ([HEAD, f"0,a,{2**63},7,512,512"], "out of range"),
        ([HEAD, "0,a,1,NaN,512,512"], "column 'guidance': 'NaN' is not a number"),
        ([HEAD, "0,a,1,inf,512,512"], "'inf' is not a number"),
        ([HEAD, "0,a,1,high,512,512"], "'high' is not a number"),
        ([HEAD, "0,a,1,-7,512,512"], "guidance -7 is negative"),
        ([HEAD, "0,a,1,1_0,512,512"], "'1_0' is not a number"),
        ([HEAD, "0,a,1,7,512,80000000"], "80000000 pixels"),
        ([HEAD, "0,a,1,7,500,512"], "column 'width': 500 pixels; give a positive multiple of 8"),
        ([HEAD, "0,a,1,7,512,0"], "column 'height': 0 pixels"),
        ([HEAD, "0,a,1,7,512,"], "a width without a height"),
        (["case_number,prompt,seed,class", "0,a b,1,x", "1,a, b,1,x"], "row 2 .*5 cells under 4 columns.*quotes"),
        ([HEAD, "0,a,1"], "row 1 .*3 cells under 6 columns"),
        ([HEAD, '0,"a,1,7,512,512'], "close every quote"),
        ([",type,prompt,evaluation_seed", "0,maybe,a,1"], "column 'type': 'maybe' is no role"),
        (["prompt,kind", "a,thing"], "column 'kind': 'thing' is no kind"),
        ([HEAD], "no rows below the header"),
        ([""], "the file is empty"),
        (["version https://git-lfs.github.com/spec/v1", "oid sha256:0"], "Git LFS pointer"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_place_and_cure(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, *lines))


def test_a_file_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(UserError, match="file.csv line 2: not UTF-8 text; save the file as CSV UTF-8"):
        load_prompts(write(tmp_path, "prompt,seed", "caf\xe9,1", encoding="latin-1"))


def test_columns_of_any_name_are_read_where_the_user_says_which_is_which(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("caption of it,Animal,prompt\na dog,dog,not this\na cat,cat,nor this\n")
    rows = load_prompts(file, kind="object", columns={"prompt": "caption of it", "label": "Animal"}).rows
    assert rows.prompt.tolist() == ["a dog", "a cat"] and rows.label.tolist() == ["dog", "cat"]
    without = tmp_path / "without.csv"
    without.write_text("what is asked\na dog\n")
    assert load_prompts(without, columns={"prompt": "what is asked"}).rows.prompt.tolist() == ["a dog"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"promt": "text"}, "'promt' is no column of prompts. Did you mean 'prompt'"),
        ({"label": "animl"}, "prompts.columns.label=animl: no such column. Did you mean 'animal'"),
        ({"label": "animal", "kind": "animal"}, "'animal' is named for two columns"),
    ],
)
def test_columns_that_are_none_are_refused(tmp_path, columns, message):
    file = tmp_path / "mine.csv"
    file.write_text("text,animal\na dog,dog\n")
    with pytest.raises(UserError, match=re.escape(message)):
        load_prompts(file, columns=columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": "i2pp"}, r"schema=i2pp: no such schema. Did you mean 'i2p'\?"),
        ({"schema": "classes"}, "schema classes needs a column 'class'"),
        ({"role": "erased"}, "prompts.role=erased"),
        ({"kind": "objects"}, r"prompts.kind=objects.*Did you mean 'object'\?"),
        ({"limit": 0}, "prompts.limit=0"),
        ({"role": "file"}, "has no column of roles"),
        ({"role": ["erase"]}, r"prompts.role=\['erase'\]: give a text"),
        ({"kind": ["object"]}, "prompts.kind=.*give a text"),
        ({"schema": True}, "prompts.schema=True: give a text"),
        ({"label": 5}, "prompts.label=5: give a text or null; a number goes in quotes"),
        ({"revision": 1234567}, "prompts.revision=1234567: give a text"),
        ({"where": "x"}, r"prompts.where='x': give conditions on columns, e.g."),
        ({"where": ["seed"]}, "prompts.where=.*give conditions"),
        ({"where": {"seed": None}}, "prompts.where.seed=None: give a text, a number or a list"),
        ({"where": {"seed": []}}, r"prompts.where.seed=\[\]"),
        ({"where": {"seed": {"a": 1}}}, "prompts.where.seed="),
        ({"where": {5: "x"}}, "prompts.where.5="),
        ({"sample": 5}, "prompts.sample=5: give how many rows"),
        ({"columns": ["text"]}, r"prompts.columns=.*which column is which"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, "prompt,seed", "a,1"), **options)


def test_a_missing_file_is_refused_with_the_nearest_one(tmp_path):
    write(tmp_path, "prompt,seed", "a,1", name="prompts.csv")
    with pytest.raises(UserError, match=r"no such file. Did you mean 'prompts.csv'\?"):
        load_prompts(tmp_path / "promts.csv")
    with pytest.raises(UserError, match="is a folder.*prompts.csv"):
        load_prompts(tmp_path)
    with pytest.raises(UserError, match="a prompt file is a .csv, .tsv, .jsonl, .txt or .parquet"):
        load_prompts(write(tmp_path, "x", name="prompts.json"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one dataset of one file; ``hub.files`` are listed, ``hub.online`` can be switched off."""

    class Hub:
        files = ["README.md", "i2p_benchmark.csv"]
        online = True
        listings = 0

    folder = tmp_path / "snapshots" / ("c" * 40)
    folder.mkdir(parents=True)
    write(folder, *EXAMPLES["i2p_original"], name="i2p_benchmark.csv")

    def listing(**at):
        assert at["repo_type"] == "dataset"
        Hub.listings += 1
        if not Hub.online:
            raise ConnectionError("no network")
        if at["repo_id"] != "AIML-TUDA/i2p":
            raise hub_error(prompt_sources.hub_errors.RepositoryNotFoundError)
        return Hub.files

    def hub_error(kind):
        return kind.__new__(kind)

    def snapshot(**at):
        assert at["local_files_only"]
        if at["repo_id"] != "AIML-TUDA/i2p":
            raise prompt_sources.hub_errors.LocalEntryNotFoundError("not cached")
        return str(folder)

    monkeypatch.setattr(prompt_sources, "list_repo_files", listing)
    monkeypatch.setattr(prompt_sources, "snapshot_download", snapshot)
    monkeypatch.setattr(prompt_sources, "hf_hub_download", lambda filename, **at: str(folder / filename))
    return Hub


def test_a_hub_dataset_is_read_and_its_commit_is_named(hub):
    prompts = load_prompts("AIML-TUDA/i2p")
    assert prompts.source == f"AIML-TUDA/i2p@{'c' * 40}/i2p_benchmark.csv" and "not pinned" in prompts.notes[-1]
    assert not any("pinned" in note for note in load_prompts("AIML-TUDA/i2p", revision="c" * 40).notes)
    assert load_prompts("AIML-TUDA/i2p/i2p_benchmark.csv").hash == prompts.hash
    assert fetch("AIML-TUDA/i2p").name == "i2p_benchmark.csv"


def test_without_a_network_the_cache_serves(hub):
    hub.online = False
    assert len(load_prompts("AIML-TUDA/i2p").rows) == 1
    before = hub.listings
    assert len(load_prompts("AIML-TUDA/i2p", revision="c" * 40).rows) == 1
    assert hub.listings == before  # a pinned commit in the cache needs no network at all
    with pytest.raises(UserError, match="Hub dataset a/b: the Hub cannot be reached.*erasebench prefetch"):
        load_prompts("a/b")


def test_hub_datasets_that_cannot_be_read_are_refused(hub):
    with pytest.raises(UserError, match="Hub dataset a/b: no such dataset"):
        load_prompts("a/b")
    hub.files = ["a.csv", "b.parquet"]
    with pytest.raises(UserError, match=r"2 data files \(a.csv, b.parquet\); name one, e.g. AIML-TUDA/i2p/a.csv"):
        load_prompts("AIML-TUDA/i2p")
    hub.files = ["README.md"]
    with pytest.raises(UserError, match="no .csv, .tsv, .jsonl, .txt or .parquet file"):
        load_prompts("AIML-TUDA/i2p")


@pytest.mark.skipif("ERASEBENCH_DATA" not in os.environ, reason="ERASEBENCH_DATA names no folder of released files")
def test_released_files_have_their_known_counts():
    folder = Path(os.environ["ERASEBENCH_DATA"])
    known = {  # rows, distinct generations, empty, over several lines, labels
        "i2p_4703": (4703, 4696, 1, 4, 0),
        "coco_30k": (30000, 30000, 0, 97, 0),
        "imagenette_5000": (5000, 4882, 0, 0, 10),
        "artists_classic_100": (100, 100, 0, 0, 5),
        "artists_modern_100": (100, 100, 0, 0, 5),
        "nudity_142": (142, 142, 0, 0, 0),
        "celebrity_speed_100": (1000, 1000, 0, 0, 200),
    }
    for name, expected in known.items():
        counts = load_prompts(folder / f"{name}.csv").counts()
        found = tuple(counts[key] for key in ("rows", "distinct", "empty", "multiline"))
        assert (*found, len(counts["labels"])) == expected, name
    i2p = load_prompts(folder / "i2p_4703.csv")
    assert i2p.rows.prompt[i2p.rows.prompt_id == "2260"].item() == "" and i2p.rows.seed.max() == 4290749014
    assert (i2p.rows.guidance == 7).sum() == 3729
    assert ((i2p.rows.width != 512) | (i2p.rows.height != 512)).sum() == 55
    assert len(load_prompts(folder / "i2p_4703.csv", where={"nudity_percentage": ">50"}).rows) == 95
    assert len(read_names(folder / "artist_names_1734.csv")) == 1734
    assert len(read_names(folder / "instance_names_1352.csv")) == 1352
