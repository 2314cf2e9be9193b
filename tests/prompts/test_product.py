"""Prompts of scripts: every sentence with every name, in the papers' numbers, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from erasebench.concepts import Concept
from erasebench.config.compose import compose
from erasebench.config.protocol import Protocol
from erasebench.errors import UserError
from erasebench.prompts.choose import from_config, prompts_here
from erasebench.prompts.product import product
from erasebench.runs.plan import drawn
from erasebench.runs.tasks import task_groups

CATS = [Concept("cat", "object"), Concept("dog", "object")]


def test_every_template_with_every_entry_and_seeds_upwards() -> None:
    made = product(
        ["a {thing} on {ground}", "my {thing}"],
        {"thing": "concepts", "ground": ["sand", "ice"]},
        "thing",
        CATS,
        "object",
        2,
        7,
    )
    rows = made.rows
    assert len(rows) == 2 * 2 * 2 + 2 * 2 and rows.prompt_id.is_unique
    assert set(rows.prompt) == {"a cat on sand", "a cat on ice", "a dog on sand", "a dog on ice", "my cat", "my dog"}
    assert set(rows.seed) == {7, 8} and rows.groupby("prompt").seed.nunique().eq(2).all()
    assert all(row.label in row.prompt for row in rows.itertuples())
    assert set(
        product(["a {thing}"], {"thing": "concepts"}, "thing", CATS, "object", 9, 0, limit=3)
        .rows.groupby("label")
        .size()
    ) == {3}


def of(*overrides: str):
    config = compose(overrides)
    ((kind, group),) = task_groups(config).items()
    return from_config(config.prompts, kind, group.concepts), group, Protocol.from_config(config.protocol)


def test_unlearncanvas_draws_5100_images_of_a_model() -> None:
    """51 themes x 20 objects x the seeds 188, 288, 588, 688, 888; an edit of a style has 100 images of it."""
    for side, edits, own in (("style", 50, 100), ("object", 20, 255)):
        prompts, group, protocol = of(
            "protocol=unlearncanvas", f"prompts=unlearncanvas_{side}", f"task=unlearncanvas_{side}"
        )
        rows = drawn(prompts.for_task(group.tasks[0]), protocol)
        assert len(rows) == 5100 and len(group.tasks) == edits
        assert set(rows.seed) == {188, 288, 588, 688, 888}
        assert (rows.role == "erase").sum() == own and set(rows.role) == {"erase", "retain"}
        assert "A Dogs image in Van Gogh style." in set(rows.prompt)


def test_the_light_unlearncanvas_draws_1020_images_of_a_model() -> None:
    for side in ("style", "object"):
        given = [f"prompts=unlearncanvas_{side}", f"task=unlearncanvas_{side}_light", "protocol.seeds=[188]"]
        prompts, group, protocol = of("protocol=unlearncanvas", *given)
        assert len(group.tasks) == 5 and len(drawn(prompts.for_task(group.tasks[0]), protocol)) == 51 * 20


def test_mace_draws_200_images_of_each_class_and_of_each_synonym_of_the_erased_one() -> None:
    prompts, group, _ = of("protocol=mace", "prompts=cifar10", "task=cifar10")
    assert len(group.tasks) == 10
    for task in group.tasks:
        rows = prompts.for_task(task)
        assert rows.groupby("role").size().to_dict() == {"erase": 200, "paraphrase": 3 * 200, "retain": 9 * 200}
        assert set(rows.label[rows.role != "retain"]) == set(task.names)
        assert set(rows.groupby(["prompt", "role"]).size()) == {200}
        assert not any(phrase in task.targets[0].phrases[1:] for phrase in ("car", "boat", "stag")), (
            "none is told of them"
        )
    rows = prompts.for_task(group.tasks[1])
    assert set(rows.prompt[rows.role == "paraphrase"]) == {
        f"a photo of the {x}" for x in ("car", "vehicle", "motorcar")
    }


def test_the_nouns_near_a_target_of_hub_are_kept_whatever_is_erased(tmp_path) -> None:
    path = tmp_path / "Pikachu.csv"
    path.write_text("noun,similarity\n" + "".join(f"noun_{i},0.{900 - i}\n" for i in range(120)), encoding="utf-8")
    given = ["task=object", "task.concepts=[Pikachu]", "task.erase=[Pikachu]", "prompts=hub_pinpoint"]
    prompts, group, _ = of(*given, f"prompts.fill.noun={path}")
    rows = prompts.for_task(group.tasks[0])
    assert len(rows) == 100 * 10 and set(rows.role) == {"retain"} and rows.label.nunique() == 100
    assert "a photo of noun_99" in set(rows.prompt) and "a photo of noun_100" not in set(rows.prompt)
    styles = [text.replace("task=object", "task=artist").replace("Pikachu", "Van Gogh") for text in given]
    assert set(of(*styles, f"prompts.fill.noun={path}")[0].rows.kind) == {"object"}, "a noun is no style"
    light, _, _ = of(*given, f"prompts.fill.noun={path}", "prompts.first=20", "prompts.images=5")
    assert len(light.rows) == 100
    with pytest.raises(UserError, match="prompts.first=121: .* has 120 names"):
        of(*given, f"prompts.fill.noun={path}", "prompts.first=121")
    with pytest.raises(UserError, match="prompts.fill.noun=None: give a list of texts, a file of names"):
        of(*given)


def test_one_of_hubs_six_languages_is_read(tmp_path) -> None:
    path = tmp_path / "Pikachu.csv"
    path.write_text(
        "Original,Spanish,French,German,Italian,Portuguese,Index\na cat,un gato,un chat,eine Katze,un gatto,um gato,7\n",
        encoding="utf-8",
    )
    for chosen, text in (
        ([], "un gato"),
        (["prompts.columns.prompt=Original"], "a cat"),
        (["prompts.columns={prompt: German}"], "eine Katze"),
    ):
        given = ["prompts=hub_language", f"prompts.source={path}", "prompts.label=Pikachu", *chosen]
        prompts, group, _ = of(*given, "task=object", "task.concepts=[Pikachu]", "task.erase=[Pikachu]")
        rows = prompts.for_task(group.tasks[0])
        assert (rows.prompt.tolist(), rows.role.tolist()) == ([text], ["erase"])


def test_paraphrases_need_the_phrases_of_concepts() -> None:
    church = [Concept("church", "object", ("chapel", "house of god")), Concept("god", "object", ("house of god",))]
    made = product(["a {x}"], {"x": "concepts"}, "x", church, "object", 3, limit=2, paraphrases=["{x}"]).rows
    asked = made.groupby(["prompt", "label", "role"]).size().to_dict()
    assert asked == {
        ("a church", "church", ""): 2, ("a god", "god", ""): 2,
        ("chapel", "church", "paraphrase"): 2, ("house of god", "god", "paraphrase"): 2,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"paraphrases: needs prompts.fill.x=concepts.*now \['church'\]"):
        product(["a {x}"], {"x": ["church"]}, "x", church, "object", paraphrases=["{x}"])
    with pytest.raises(UserError, match="no blank with a name"):
        product(["a {x}"], {"x": "concepts"}, "x", church, "object", paraphrases=["a church"])


def test_the_eighty_sentences_are_those_of_clip() -> None:
    """As open_clip has them; its file is read by itself, since the package around it takes a minute."""
    place = Path(importlib.util.find_spec("open_clip").submodule_search_locations[0]) / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", place)
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    blank = "{instance}"
    assert compose(["prompts=speed_instances"]).prompts.templates == [
        sentence(blank) for sentence in library.OPENAI_IMAGENET_TEMPLATES
    ]


def test_speed_draws_ten_images_of_eighty_sentences() -> None:
    prompts, _, _ = of("protocol=speed", "prompts=speed_instances", "task=instances_1")
    assert set(prompts.rows.groupby("label").size()) == {800} and prompts.rows.prompt.nunique() == 80 * 5
    assert "a photo of many Snoopy." in set(prompts.rows.prompt)


def test_eraseeval_draws_five_images_by_name_and_five_by_a_description_without_it() -> None:
    for option, task in (("eraseeval", "eraseeval_objects"), ("eraseeval_artists", "eraseeval_artists")):
        prompts, group, protocol = of("protocol=eraseeval_offline", f"prompts={option}", f"task={task}")
        for one in group.tasks:
            rows = drawn(prompts.for_task(one), protocol)
            assert rows.groupby("role").size().to_dict() == {"erase": 5, "paraphrase": 5, "retain": 20}
            assert set(rows.seed) == {2024, 2025, 2026, 2027, 2028}
            (text,) = set(rows.prompt[rows.role == "paraphrase"])
            assert 20 <= len(text.split()) <= 40
            said = text.casefold()
            assert not any(word.casefold() in said for word in one.names[0].split() if len(word) > 3), one.names[0]


def test_they_need_no_file_and_no_network() -> None:
    for name in ("cifar10", "speed_instances", "unlearncanvas_style"):
        assert prompts_here(compose([f"prompts={name}"]).prompts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": []}, "give a list of sentences"),
        ({"templates": "a {thing}"}, "give a list of sentences"),
        ({"templates": ["a thing"]}, "no blank with a name"),
        ({"templates": ["a {}"]}, "no blank with a name"),
        ({"templates": ["a {thing"]}, "write a blank as"),
        ({"templates": ["a {think}"]}, "no entries for {think}. Did you mean 'thing'"),
        ({"fill": {"thing": []}}, "fill.thing=.*give a list of texts, a file of names, or concepts"),
        ({"fill": {"thing": "concept"}}, "concept: no such file"),
        ({"role": "far"}, "prompts.role=far: give one of erase"),
        ({"fill": ["cat"]}, "give the entries of each blank"),
        ({"label": "ground"}, "has no blank of that name"),
        ({"images": 0}, "images=0: give a whole number of 1"),
        ({"images": True}, "images=True"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63 - 1}, "not 2 seeds from there"),
        ({"limit": 0}, "limit=0"),
        ({"images": 10**6}, "more than 1000000 rows"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, message: str) -> None:
    options = {
        "templates": ["a {thing}"],
        "fill": {"thing": "concepts"},
        "label": "thing",
        "images": 2,
        "seed": 0,
    } | changes
    with pytest.raises(UserError, match=message):
        product(concepts=CATS, kind="object", **options)


def test_a_node_that_lacks_a_part_or_has_another_is_refused() -> None:
    node = {"source": "templates", "templates": ["a {x}"], "fill": {"x": "concepts"}}
    with pytest.raises(UserError, match="prompts.label: not given"):
        from_config(node, "object", CATS)
    with pytest.raises(UserError, match="prompts.image: no such key for source templates. Did you mean 'images'"):
        from_config({**node, "label": "x", "image": 2}, "object", CATS)
